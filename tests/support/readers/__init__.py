"""Readers of what is written for people and machines, as a browser, a runner or a person would read it."""
