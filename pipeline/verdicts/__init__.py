"""Verdicts: what people decide about pictures and pairs of pictures, and what follows from it.

`journal` keeps every verdict as soon as it is made, without the lock of the lake; a build moves the entries of the
journal to the table `verdicts`. `standing` finds the verdicts that count and the images that they are about. `files`
writes verdicts to a file for git, and reads one.
"""
