"""The local engine: worker processes on the cores of this machine, with a limited number of items in flight.

Workers start from a fork server where the system has one, else they are spawned, as on Windows. They are never forked
from this process: Polars and Arrow hold threads and locks that do not survive a fork. They import nothing from the
current folder, and do not run the script of the user again; see `pipeline.import_path`.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import Literal, TypeVar

from pipeline.engines.processes import Processes, start_error, tracker_restarts_quietly
from pipeline.import_path import workers_start_safely

StartMethod = Literal["forkserver", "spawn"]

# Environment variables with bucket credentials and settings: workers get their current values.
_FORWARDED = ("AWS_", "IMAGELAKE_")
# Signals that ask a process to end.
_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

Item = TypeVar("Item")
Result = TypeVar("Result")


class LocalEngine:
    """Run functions in worker processes.

    Args:
        workers: number of processes; None for one per core that this process may use. With 1 worker, or with a single
            item, the work is done in this process.
        preload: modules that the fork server imports once for all workers. Spawned workers import what they need.
        start_method: how to start workers; None for "forkserver" where the system has it, else "spawn".

    Attributes:
        pieces: 1: threads of one process use all cores already, and copying pieces to other processes would cost time.
        shares_disk: True.
    """

    pieces = 1
    shares_disk = True

    def __init__(
        self, workers: int | None = None, preload: Sequence[str] = (), start_method: StartMethod | None = None
    ) -> None:
        self.workers = workers or available_cores()
        self._preload = tuple(preload)
        self._start_method = start_method

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """Yield `function(item)` for every item, in the order of the items.

        At most `workers + 1` items are taken and not yet returned as results, so memory does not grow with the number
        of items.

        Args:
            function: a picklable function.
            items: picklable items; consumed lazily, in this process.

        Raises:
            EngineError: a worker died, or cannot be started.
        """
        source = iter(items)
        # Before the first items are read, so that the fork server does its imports in the meantime.
        context = start_server(self.workers, self._preload, self._start_method)
        first = list(islice(source, 2))
        items = chain(first, source)
        if context is None or len(first) < 2:  # noqa: PLR2004 - a pool for one item is slower than none
            yield from map(function, items)
            return
        processes = Processes(context, self.workers, _worker_starts, _start_worker, _forwarded_variables())
        yield from processes.map(function, items, self.workers + 1)


# Runs everything in this process.
HERE = LocalEngine(1)


def available_cores() -> int:
    """Count the cores that this process may use."""
    # Windows and macOS have no sched_getaffinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_server(
    workers: int | None, preload: Sequence[str], start_method: StartMethod | None = None
) -> BaseContext | None:
    """Start the fork server if it is needed and not running yet. Does not wait for its imports.

    Args:
        workers: number of workers; None for one per core that this process may use.
        preload: modules that the fork server imports.
        start_method: as for `LocalEngine`.

    Returns:
        The context to start workers with; None with one worker, whose work is done in this process.

    Raises:
        EngineError: it cannot be started.
    """
    if (workers or available_cores()) == 1:
        return None
    has_fork_server = "forkserver" in multiprocessing.get_all_start_methods()
    if start_method == "spawn" or not has_fork_server:
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver  # noqa: PLC0415 - not for systems without it

    context = multiprocessing.get_context("forkserver")
    # imagelake first: it loads this package even if the current folder has a pipeline.py.
    context.set_forkserver_preload(["imagelake", *preload])
    try:
        with _interrupts_ignored(), _one_blas_thread(), workers_start_safely(), tracker_restarts_quietly():
            forkserver.ensure_running()
    except OSError as error:
        raise start_error(error) from error
    return context


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread in processes started here: there is one worker per core already."""
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
    """Make processes started here ignore Ctrl-C: the driver handles it, and workers would print tracebacks."""
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
    """Delay Ctrl-C, and other signals that have a handler, until the end of the block.

    An interrupt while a worker or a task starts would leave it unknown to this process, which then cannot end it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = {number: found for number in _ENDING if callable(found := signal.getsignal(number))}
    for number in before:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])


@contextmanager
def _worker_starts() -> Iterator[None]:
    with interrupts_deferred(), _one_blas_thread(), workers_start_safely():
        yield


def _forwarded_variables() -> dict[str, str]:
    """Copy the variables that workers need: the fork server has the environment of the time when it started."""
    return {name: value for name, value in os.environ.items() if name.startswith(_FORWARDED)}


def _start_worker(variables: Mapping[str, str]) -> None:
    """Set the variables, ignore Ctrl-C, and exit when the driver ends for any reason."""
    for name in [name for name in os.environ if name.startswith(_FORWARDED)]:
        del os.environ[name]
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
