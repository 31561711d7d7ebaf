"""Find single images of a lake, and explain them.

`find` finds the images that a picture duplicates, `why` explains one image. `rules.py` looks up a rule of the lake,
`queries.py` decodes pictures that are not in it, `index.py` reads the index in blocks, `images.py` finds images by
path, id or digest.
"""
