"""Check the types of arguments of the public API, before a library raises an error that callers cannot understand.

Each function returns the argument as the plain Python type, or raises TypeError in one sentence: what it is, and what
it must be.
"""

import os
from operator import index

import numpy as np


def text(name: str, value: object) -> str:
    """Return an argument that must be text."""
    if not isinstance(value, str):
        raise _wrong(name, value, "text (str)")
    return str(value)


def whole_number(name: str, value: object) -> int:
    """Return an argument that must be a whole number; also one of numpy."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise _wrong(name, value, "a whole number (int)")
    return index(value)


def true_or_false(name: str, value: object) -> bool:
    """Return an argument that must be True or False; also one of numpy."""
    if not isinstance(value, bool | np.bool_):
        raise _wrong(name, value, "True or False")
    return bool(value)


def place(name: str, value: object) -> str:
    """Return an argument that must be a path or an address, as text."""
    if not isinstance(value, str | os.PathLike) or not isinstance(found := os.fspath(value), str):
        raise _wrong(name, value, "a path (str or pathlib.Path)")
    return found


def _wrong(name: str, value: object, expected: str) -> TypeError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."  # noqa: PLR2004 - of one line
    return TypeError(f"{name} is {' '.join(shown.split())} ({type(value).__name__}); it must be {expected}")
