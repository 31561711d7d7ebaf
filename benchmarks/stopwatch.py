"""Seconds by step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Time steps by name; a step that is timed in pieces is the sum of them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time the code inside."""
        started = time.perf_counter()
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - started
