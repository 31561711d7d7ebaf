"""Splits: assign images to roles in a random but reproducible order, and drop images that would leak between roles."""
