"""Search a lake, and explain its images. In this package a *picture* is a query, an *image* is in the lake.

`find.py` finds the duplicates of pictures, `why.py` explains one image. Both use the others: `rules.py` looks up a rule
of the lake, `queries.py` decodes pictures, `index.py` reads and caches the index, `images.py` finds images by path, id
or digest, and `tables.py` is what they need of a `Lake`.
"""
