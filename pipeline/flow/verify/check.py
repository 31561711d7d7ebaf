"""What a check of `verify` returns."""

from collections.abc import Sequence
from typing import NamedTuple

# Faults named for each file or table: enough to see what is wrong, not a million lines.
MOST = 5


class Check(NamedTuple):
    """One thing that was checked: how many rows or files, and what is wrong with them."""

    name: str
    checked: int
    faults: Sequence[str]
