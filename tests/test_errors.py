import pickle
import re

import pytest

from pipeline import errors

CLASSES = [value for value in vars(errors).values() if isinstance(value, type)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives_the_way_out_of_a_worker(kind: type[errors.ImagelakeError]) -> None:
    back = pickle.loads(pickle.dumps(kind("what, where, what next")))  # noqa: S301 - our own bytes
    assert type(back) is kind
    assert str(back) == "what, where, what next"


def test_the_tree_is_drawn_whole() -> None:
    drawn = re.findall(r"^ +[│ ├└─]*(\w+(?:Error))\b", errors.__doc__ or "", re.MULTILINE)
    assert sorted(drawn) == sorted(kind.__name__ for kind in CLASSES)


def test_each_inherits_what_a_caller_would_catch() -> None:
    builtin = (ValueError, LookupError, OSError, RuntimeError, ImportError)
    assert all(issubclass(kind, builtin) for kind in CLASSES if kind is not errors.ImagelakeError)
