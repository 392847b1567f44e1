"""Damaged, hostile and random inputs, and what has to hold for each of them."""
