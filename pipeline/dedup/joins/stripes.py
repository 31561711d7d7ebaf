"""Run a join's stripes on every core, few at a time, and hand out what they find in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")

# How many threads; None for one on every core.
_THREADS: ContextVar[int | None] = ContextVar("threads", default=None)


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Map in threads: numpy works outside Python's lock. At most two results a core wait to be taken.

    While it runs, BLAS keeps to the thread it is called from: the cores are busy with one stripe each.
    """
    cores = _THREADS.get() or len(os.sched_getaffinity(0))
    waiting: deque[Future[Result]] = deque()
    with one_blas_thread(), ThreadPoolExecutor(cores) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * cores:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def on_one_core() -> Iterator[None]:
    """Let what runs inside take one thread: the other cores are other workers'."""
    before = _THREADS.set(1)
    try:
        yield
    finally:
        _THREADS.reset(before)


def one_blas_thread() -> AbstractContextManager[Any]:
    """Keep BLAS to the thread it is called from: small products only lose by waiting for another core."""
    limits: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return limits


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    # Looking for the libraries takes longer than a small product.
    return ThreadpoolController()
