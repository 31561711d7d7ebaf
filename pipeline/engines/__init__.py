"""Engines run a function over items, such as shards: in processes of this machine, or on a Ray cluster.

An engine has one method, `map(function, items)`. It yields `function(item)` in the order of the items, takes an item
only when there is capacity for it, and raises errors unchanged.
"""

from collections.abc import Callable, Generator, Iterable
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(Protocol):
    """A place to run functions."""

    @property
    def pieces(self) -> int:
        """Number of pieces to cut work into that one process could also do with threads; 1 to leave it whole."""

    @property
    def shares_disk(self) -> bool:
        """Whether every worker can read the disks of this machine. If not, workers can read shared storage only."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """Yield `function(item)` for every item, in order, with a limited number of items in flight."""
        ...
