"""Worker processes, each with two pipes of its own: one for its tasks, one for its results.

Workers share no lock, queue or semaphore. A worker that dies, whatever it does at that time, leaves nothing locked, and
this process sees the end of its pipe. `concurrent.futures` shares a queue between the workers: one that dies while it
writes into it may block all others, and its semaphores need `/dev/shm`.
"""

import pickle
import signal
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar

from pipeline.errors import EngineError, one_line
from pipeline.limits import limit_error

Item = TypeVar("Item")
Result = TypeVar("Result")

# How often to try to start a worker if the fork server has died: it is started again.
_STARTS = 3
# Seconds to wait for the exit code of a worker whose pipe has ended.
_EXIT_SECONDS = 5
# Signals that a fault of a program causes.
_CRASHES = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT")


class WorkerTraceback(Exception):  # noqa: N818 - shown as the cause of an error, and never caught
    """The traceback of an error in its worker."""

    def __str__(self) -> str:
        """Format it as `concurrent.futures` does."""
        return f'\n"""\n{self.args[0]}"""'


class _Outcome(NamedTuple):
    """What a task returned, or the error that it raised and its traceback."""

    value: Any
    error: Exception | None
    trace: str


@dataclass(eq=False)
class _Task:
    item: Any
    outcome: _Outcome | None = None


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    tasks: Connection
    results: Connection
    # While it starts, a worker has no task and is not ready for one.
    ready: bool = False
    task: _Task | None = None


class Processes:
    """A bounded number of worker processes.

    Args:
        context: how to start a worker.
        size: most workers.
        starting: makes a context manager that is entered while a worker is started.
        initialize: called in a new worker, with `settings`.
        settings: picklable.
    """

    def __init__(
        self,
        context: BaseContext,
        size: int,
        starting: Callable[[], AbstractContextManager[object]],
        initialize: Callable[[Mapping[str, str]], None],
        settings: Mapping[str, str],
    ) -> None:
        self._context = context
        self._size = size
        self._starting = starting
        self._initialize = initialize
        self._settings = settings
        self._workers: list[_Worker] = []

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], capacity: int) -> Iterator[Result]:
        """Yield `function(item)` for every item, in order. The workers end when this generator ends.

        Args:
            function: a picklable function.
            items: picklable items.
            capacity: most items that are taken and not yet returned as results.

        Raises:
            EngineError: a worker died or cannot be started.
        """
        died = True
        try:
            yield from self._map(function, iter(items), capacity)
            died = False
        except EngineError:
            raise
        except BaseException:
            died = False
            raise
        finally:
            self._end(at_once=died)

    def _map(self, function: Callable[[Item], Result], items: Iterator[Item], capacity: int) -> Iterator[Result]:
        taken: deque[_Task] = deque()
        waiting: deque[_Task] = deque()
        for item in items:
            taken.append(_Task(item))
            waiting.append(taken[-1])
            self._receive(timeout=0)
            self._hand_out(function, waiting)
            if len(taken) >= capacity:
                yield self._result(function, taken, waiting)
        while taken:
            yield self._result(function, taken, waiting)

    def _result(self, function: Callable[[Any], Result], taken: deque[_Task], waiting: deque[_Task]) -> Result:
        """Wait for the result of the first task."""
        while (outcome := taken[0].outcome) is None:
            self._receive(timeout=None)
            self._hand_out(function, waiting)
        taken.popleft()
        if outcome.error is not None:
            raise outcome.error from WorkerTraceback(outcome.trace)
        value: Result = outcome.value
        return value

    def _hand_out(self, function: Callable[[Any], object], waiting: deque[_Task]) -> None:
        """Give waiting tasks to workers that have none; start workers for the rest, up to the limit."""
        for worker in self._workers:
            if worker.ready and worker.task is None and waiting:
                worker.task = waiting.popleft()
                message = pickle.dumps((function, worker.task.item), pickle.HIGHEST_PROTOCOL)
                # A worker that takes its task needs no copy here.
                worker.task.item = None
                try:
                    worker.tasks.send_bytes(message)
                except OSError as error:
                    raise _death(worker.process) from error
        starting = sum(not worker.ready for worker in self._workers)
        for _ in range(min(len(waiting) - starting, self._size - len(self._workers))):
            self._start()

    def _receive(self, timeout: float | None) -> None:
        """Take the results that are there; wait for one if there is no timeout."""
        by_pipe = {worker.results: worker for worker in self._workers}
        for pipe in wait(list(by_pipe), timeout):
            worker = by_pipe[pipe]  # type: ignore[index] # it returns what it was given
            try:
                message = worker.results.recv()
            except (EOFError, OSError) as error:
                raise _death(worker.process) from error
            if worker.task is None:
                worker.ready = True
                continue
            worker.task.outcome, worker.task = _Outcome(*message), None

    def _start(self) -> None:
        for left in range(_STARTS - 1, -1, -1):
            try:
                with self._starting(), tracker_restarts_quietly():
                    # Inside the block, at whose end an interrupt may arrive: all workers must be known.
                    self._workers.append(self._try_to_start())
            except (EOFError, OSError, RuntimeError) as error:
                if limit_error(error) is None and left:
                    continue
                raise start_error(error) from error
            return

    def _try_to_start(self) -> _Worker:
        tasks, own_tasks = self._context.Pipe(duplex=False)
        own_results, results = self._context.Pipe(duplex=False)
        try:
            arguments = (tasks, results, self._initialize, self._settings)
            process = self._context.Process(target=_serve, args=arguments, daemon=True)  # type: ignore[attr-defined]
            process.start()
        except BaseException:
            own_tasks.close()
            own_results.close()
            raise
        finally:
            # From here on only the worker holds these, so that their end is the end of the worker.
            tasks.close()
            results.close()
        return _Worker(process, own_tasks, own_results)

    def _end(self, *, at_once: bool) -> None:
        """End all workers: a worker that has no task ends, others finish theirs first, or are terminated."""
        for worker in self._workers:
            worker.tasks.close()
            if at_once:
                worker.process.terminate()
        for worker in self._workers:
            # Not by its exit code: it is not known if the fork server is dead.
            with suppress(EOFError, OSError):
                while True:
                    worker.results.recv_bytes()
            worker.results.close()
            worker.process.join()
        self._workers.clear()


@contextmanager
def tracker_restarts_quietly() -> Iterator[None]:
    """Hide the warning of `multiprocessing` that its resource tracker has died: nothing here uses its resources."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="resource_tracker")
        yield


def start_error(error: BaseException) -> EngineError:
    """Make the error for a worker, or the fork server, that cannot be started."""
    limit = limit_error(error)
    reason = str(limit) if limit else f"{one_line(error).rstrip('.')}. Run the command with --workers 1."
    return EngineError(f"a worker process cannot be started: {reason}")


def _death(process: BaseProcess) -> EngineError:
    """Describe a worker whose pipe has ended."""
    process.join(_EXIT_SECONDS)
    return EngineError(f"worker process {process.pid} {describe_exit(process.exitcode)}")


def describe_exit(code: int | None) -> str:
    """Say how a worker ended and what to do.

    Args:
        code: its exit code; minus the number of the signal that killed it; None if it is not known.
    """
    name = _signal_name(code)
    if name is None:
        how = "ended before its work was done" + (f" (exit code {code})" if code not in (None, 255) else "")
        hint = "Run the command again, with --workers 1 if this repeats"
    elif name == "SIGKILL":
        how = "was killed (SIGKILL), most likely because memory was short"
        hint = "Run the command again with fewer workers (--workers 1)"
    elif name in _CRASHES:
        how = f"crashed ({name})"
        hint = "Run the command again. If this repeats, a library has a fault: please report it"
    else:
        how = f"was ended by another program ({name})"
        hint = "Run the command again"
    return f"{how}. The lake is as of its last release. {hint}."


def _signal_name(code: int | None) -> str | None:
    if code is None or code >= 0:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _serve(
    tasks: Connection, results: Connection, initialize: Callable[[Mapping[str, str]], None], settings: Mapping[str, str]
) -> None:
    """Do tasks until there are no more, in a worker."""
    initialize(settings)
    # A pipe ends when the driver closes it, or has died.
    with suppress(EOFError, OSError):
        results.send("ready")
        while True:
            pickled_task = tasks.recv_bytes()
            results.send_bytes(_do(pickled_task))


def _do(pickled_task: bytes) -> bytes:
    try:
        function, item = pickle.loads(pickled_task)  # noqa: S301 - made by the driver
        return pickle.dumps((function(item), None, ""), pickle.HIGHEST_PROTOCOL)
    except BaseException as error:  # noqa: BLE001 - all of them go to the driver
        return pickle.dumps((None, picklable(error), traceback.format_exc()), pickle.HIGHEST_PROTOCOL)


def picklable(error: BaseException) -> Exception:
    """Return an error if it survives pickling, else a RuntimeError with its type and message."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - just made
    except Exception:  # noqa: BLE001 - pickling may raise anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
