"""Map a function over shards: where and on how many cores is the engine's business alone.

An engine has one method, `map(function, items)`: it yields `function(item)` in the order of the items, takes the next
item only when there is room, and lets errors through as they were raised.
"""

from collections.abc import Callable, Generator, Iterable
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(Protocol):
    """Somewhere to run functions."""

    @property
    def pieces(self) -> int:
        """Into how many pieces to cut work that one process could do with threads; 1 where it should not be cut."""

    @property
    def shares_disk(self) -> bool:
        """Whether every worker sees the disks of this machine; where not, shared storage is all that it sees."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """Yield `function(item)` for every item, in order, with bounded work in flight."""
        ...
