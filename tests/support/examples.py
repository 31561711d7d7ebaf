"""How many examples of a law are drawn, and which cases of a test are slow: fewer by default if they take long."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings

# `pytest --hypothesis-profile thorough` loads it.
THOROUGH = "thorough"


def few(count: int, *, thorough: int = 100) -> settings:
    """Draw `count` examples of a test; `thorough` examples if the profile of that name is loaded."""
    return settings(max_examples=thorough if settings.get_current_profile_name() == THOROUGH else count)


def slow_but(quick: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """Return the cases of a test, all but the quick ones marked as slow."""
    kept = list(quick)
    return [case if case in kept else pytest.param(case, marks=pytest.mark.slow) for case in cases]
