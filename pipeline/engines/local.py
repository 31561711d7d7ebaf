"""The local engine: processes on every core of this machine, a bounded number of items in flight."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing import forkserver
from multiprocessing.connection import wait
from typing import TypeVar

from pipeline.errors import EngineError

# Who asks buckets, and where.
_VARIABLES = ("AWS_", "IMAGELAKE_")

Item = TypeVar("Item")
Result = TypeVar("Result")


class LocalEngine:
    """Run functions in worker processes.

    Args:
        workers: how many; None for one on every core that this process may use. With 1, or with a single item, the
            work is done in this process.
        preload: modules that workers start with, so that each is imported once and not once a worker.

    Attributes:
        pieces: 1: what is cut into pieces here would only be copied to processes that take the cores of threads.
        shares_disk: True.
    """

    pieces = 1
    shares_disk = True

    def __init__(self, workers: int | None = None, preload: Sequence[str] = ()) -> None:
        self.workers = workers or len(os.sched_getaffinity(0))
        self._preload = tuple(preload)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """Yield `function(item)` for every item, in the order of the items.

        At most `workers + 1` items are taken and not yet handed back as results, so memory does not grow with the
        number of items.

        Args:
            function: a picklable function.
            items: picklable items; consumed lazily, in this process.

        Raises:
            EngineError: a worker was killed, most often for want of memory.
        """
        source = iter(items)
        # Before the first items are read: the server of processes does its imports meanwhile.
        context = start_server(self.workers, self._preload)
        first = list(islice(source, 2))
        items = chain(first, source)
        if context is None or len(first) < 2:  # noqa: PLR2004 - a pool for one item is slower than none
            yield from map(function, items)
            return
        pool = ProcessPoolExecutor(self.workers, context, initializer=_start_worker, initargs=(_told(),))
        try:
            yield from _in_order(pool, function, items, self.workers + 1)
        except BrokenProcessPool as error:
            raise EngineError(
                "a worker process died. Most likely it was killed for using too much memory: build again with fewer "
                'workers (--workers 1). In a script of your own, start builds under `if __name__ == "__main__":`, '
                "as every worker imports the script. Nothing was committed."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


# For work that is done in this process.
HERE = LocalEngine(1)


def start_server(workers: int | None, preload: Sequence[str]) -> multiprocessing.context.ForkServerContext | None:
    """Start the process that starts workers, where it is not running yet; nobody waits for its imports.

    Args:
        workers: how many workers there will be; None for one on every core that this process may use.
        preload: modules that workers start with.

    Returns:
        Where to make a pool; None with one worker, whose work is done in this process.
    """
    if (workers or len(os.sched_getaffinity(0))) == 1:
        return None
    # Not fork: Polars and Arrow hold threads and locks that do not survive it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    with _interrupts_ignored(), _one_blas_thread():
        forkserver.ensure_running()
    return context


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Let what is started here inherit a BLAS of one thread: there is a worker on every core already."""
    name = "OPENBLAS_NUM_THREADS"
    before = os.environ.get(name)
    os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Let what is started here inherit deafness to ctrl-C, which is for the driver: workers would print tracebacks."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Let ctrl-C wait until this is over.

    The first submit starts the workers. Interrupted in between, one that is started is in nobody's books: it takes the
    word to stop that is meant for another, which then is waited for without end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)


def _in_order(
    pool: ProcessPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], room: int
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    for item in items:
        with interrupts_deferred():
            waiting.append(pool.submit(function, item))
        if len(waiting) >= room:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _told() -> dict[str, str]:
    """Tell what a worker must know of the environment: the server of processes has it as it was at its own start."""
    return {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}


def _start_worker(told: dict[str, str]) -> None:
    """Leave ctrl-C to the driver, and leave when the driver is gone, however it went: no worker lingers."""
    for name in [name for name in os.environ if name.startswith(_VARIABLES)]:
        del os.environ[name]
    os.environ.update(told)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
