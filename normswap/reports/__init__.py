"""What a command found, as people and machines read it."""
