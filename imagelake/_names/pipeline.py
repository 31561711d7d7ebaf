"""Stand-in for the package `pipeline`: importing it loads the installed package in its place."""

from imagelake import _load

_load("pipeline")
