"""Stand-in for the package `schemas`: importing it loads the installed package in its place."""

from imagelake import _load

_load("schemas")
