"""Stream the results of a join: run its parts in threads, in order and with bounded memory; combine small results."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from pipeline.pixels import available_cores

Item = TypeVar("Item")
Result = TypeVar("Result")
Number = TypeVar("Number", bound=np.generic)
Position = TypeVar("Position", bound=np.generic)
# Left and right positions of pairs, and a number for each pair.
PairArrays = tuple[NDArray[Position], NDArray[Position], NDArray[Number]]

# Number of threads of `map_in_order`; None means one per core.
_THREADS: ContextVar[int | None] = ContextVar("threads", default=None)


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Map a function over items in threads, one per core. Numpy releases Python's lock while it computes.

    BLAS is limited to one thread meanwhile, because every core already has its own item.

    Args:
        function: computes the result of an item.
        items: read only as far as threads are free.

    Yields:
        Results in the order of the items. At most two results per core wait in memory.
    """
    threads = _THREADS.get() or available_cores()
    with one_blas_thread():
        pool = ThreadPoolExecutor(threads)
        try:
            yield from map_ahead(pool, function, items, 2 * threads)
        finally:
            pool.shutdown(cancel_futures=True)


def map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], limit: int
) -> Iterator[Result]:
    """Map a function over items in a thread pool.

    Args:
        pool: runs the function.
        function: computes the result of an item.
        items: read only as far as the limit allows.
        limit: number of submitted items up to which the next one is submitted without waiting for the first.

    Yields:
        Results in the order of the items.
    """
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > limit:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def combine_small(
    results: Iterator[PairArrays[Position, Number]], minimum: int
) -> Iterator[PairArrays[Position, Number]]:
    """Concatenate small results, in their order.

    Args:
        results: arrays of pairs, of any length.
        minimum: number of pairs in a combined result, at least; the last one may be smaller.

    Yields:
        The same pairs in fewer, larger arrays; never an empty one.
    """
    waiting: list[PairArrays[Position, Number]] = []
    count = 0
    for pairs in results:
        if len(pairs[0]):
            waiting.append(pairs)
            count += len(pairs[0])
        if count >= minimum:
            yield _concatenate(waiting)
            waiting, count = [], 0
    if waiting:
        yield _concatenate(waiting)


def _concatenate(parts: list[PairArrays[Position, Number]]) -> PairArrays[Position, Number]:
    left, right, numbers = zip(*parts, strict=True)
    return np.concatenate(left), np.concatenate(right), np.concatenate(numbers)


@contextmanager
def single_thread() -> Iterator[None]:
    """Limit `map_in_order` to one thread, for processes that share the machine with other workers."""
    token = _THREADS.set(1)
    try:
        yield
    finally:
        _THREADS.reset(token)


def one_blas_thread() -> AbstractContextManager[Any]:
    """Limit BLAS to the calling thread: for small products, waiting for other threads costs more than they save."""
    limits: AbstractContextManager[Any] = _thread_pools().limit(limits=1, user_api="blas")
    return limits


@lru_cache(maxsize=1)
def _thread_pools() -> ThreadpoolController:
    # Cached because the search for loaded libraries takes longer than a small product.
    return ThreadpoolController()
