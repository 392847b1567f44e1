"""Judges that share no code with the package, and mutants that these have to reject."""
