"""Stand-ins for the packages `pipeline` and `schemas`.

`imagelake` puts this folder first on `sys.path` where another module has one of these names. Each stand-in replaces
itself with the installed package.
"""
