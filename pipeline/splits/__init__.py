"""Splits: assign images to roles in a random but reproducible order, and drop images that would leak between roles.

`draw.py` draws single images, `groups/` draws whole groups. `previous.py` finds the role that a picture had before, and
`sanitize.py` marks the rows to drop.
"""
