"""The Ray engine: tasks on the cores of this machine or of a cluster, with a limited number of them in flight.

First the engine, which runs in the driver; then `do_task`, which runs in a worker.
"""

import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from typing import Any, NamedTuple, TypeVar

from pipeline.engines.local import available_cores, interrupts_deferred
from pipeline.engines.processes import WorkerTraceback, picklable
from pipeline.errors import EngineError, LimitError, MissingExtraError, StorageError, one_line
from pipeline.import_path import current_folder_named, without_current_folder
from pipeline.limits import soft_limit

Item = TypeVar("Item")
Result = TypeVar("Result")

# Tasks in flight per core of the cluster: while one runs, the input of the next is transferred.
_TASKS_PER_CORE = 2
# Seconds after which the cores of a cluster are counted again: nodes come and go.
_RECOUNT_AFTER = 5.0
# How often a task is run again after its worker or node died.
_RETRIES = 3
# Seconds that a worker waits before each further try after a transient error.
_RETRY_WAITS = (1, 4, 16)
# Errors that a later try may not have. Other errors are not retried.
_TRANSIENT = (StorageError, ConnectionError, TimeoutError)
# Seconds to wait for a cluster to answer, and for cancelled tasks to end.
_TIMEOUT = 30
# Seconds in which interrupted tasks may end by themselves.
_SHORT = 3
# Ray reads these when it is imported. By default it retries forever when memory is short.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_oom_retries": str(_RETRIES),
    "RAY_raylet_start_wait_time_s": "40",
}
# How often to try to start Ray: it fails if its agents take 15 seconds, as they do on a busy machine
# (github.com/ray-project/ray/issues/65983).
_STARTS = 3
# Set to 1 in workers: each has one core.
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "POLARS_MAX_THREADS")


class Outcome(NamedTuple):
    """The outcome of a task.

    Attributes:
        value: return value of the function.
        error: the error that it raised, or None.
        trace: traceback of the error.
        output: text that it printed on stdout and stderr.
    """

    value: Any
    error: Exception | None
    trace: str
    output: str


class RayEngine:
    """Run functions as tasks of Ray.

    Without an address, the engine starts its own Ray on first use; it ends with the process. If the process is
    connected to a Ray already, that one is used.

    All nodes of a cluster need the same imagelake version, which every task checks, and shared storage: the lake, and
    sources other than downloads. This process must run on one of the nodes.

    If a worker or node dies, its task runs again elsewhere, at most `_RETRIES` times; files that it wrote before are
    not part of the lake. The same worker retries transient errors after a pause. Other errors are raised at once.

    Args:
        workers: cores of the engine's own Ray; None for all that this process may use. With a cluster: tasks in
            flight.
        address: of a cluster, as `ray start` prints it, or "auto"; None for `RAY_ADDRESS`, or no cluster without it.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        if find_spec("ray") is None:
            raise MissingExtraError(
                "engine 'ray' needs ray, which is not installed. Install it with pip install 'imagelake[ray]', or "
                "build with --engine local."
            )
        found = address or os.environ.get("RAY_ADDRESS") or "local"
        self.address = None if found == "local" else found
        self.workers = workers
        self._cores, self._counted_at = 0, -_RECOUNT_AFTER
        self._printed: set[str] = set()

    @property
    def shares_disk(self) -> bool:
        """Whether all workers are on this machine."""
        return self.address is None

    @property
    def pieces(self) -> int:
        """How many tasks can run at once.

        Raises:
            EngineError: the cluster does not answer.
        """
        if self.address is None:
            return self.workers or available_cores()
        self._connect()
        return min(self.workers or self._count_cores(), self._count_cores())

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """Yield `function(item)` for every item, in the order of the items.

        At most two items per core, or `workers` items with a cluster, are taken and not yet returned as results. If the
        generator is closed early, as by Ctrl-C, it waits until its tasks have ended, and cancels long ones. Output of
        workers is printed on stderr.

        Args:
            function: a picklable function.
            items: picklable items; consumed lazily, in this process.

        Raises:
            EngineError: Ray cannot be started or reached, workers die repeatedly, or run another imagelake version.
            LimitError: the size of files is limited, so that Ray cannot start.
        """
        pending: deque[Any] = deque()
        try:
            for item in items:
                self._connect()
                with interrupts_deferred():
                    pending.append(_submit(function, item))
                while len(pending) >= self._capacity():
                    yield self._next_result(pending)
            while pending:
                yield self._next_result(pending)
        finally:
            _cancel(pending)

    def _next_result(self, pending: deque[Any]) -> Any:  # noqa: ANN401 - what the function returns
        outcome = _wait_for(pending[0])
        # Removed only after the wait: a task that is interrupted in it must still be cancelled.
        pending.popleft()
        if outcome.output and outcome.output not in self._printed:
            self._printed.add(outcome.output)
            _print(outcome.output)
        if outcome.error is not None:
            raise outcome.error from WorkerTraceback(outcome.trace)
        return outcome.value

    def _capacity(self) -> int:
        if self.workers and self.address:
            return self.workers
        return max(2, _TASKS_PER_CORE * self._count_cores())

    def _count_cores(self) -> int:
        if time.monotonic() - self._counted_at >= _RECOUNT_AFTER:
            nodes = [node for node in _import_ray().nodes() if node["Alive"]]
            self._cores = int(sum(node["Resources"].get("CPU", 0) for node in nodes))
            self._counted_at = time.monotonic()
        return max(1, self._cores)

    def _connect(self) -> None:
        ray = _import_ray()
        _CANCELLING.clear()
        if ray.is_initialized():
            return
        own = self.address is None
        if own and soft_limit("RLIMIT_FSIZE") is not None:
            raise LimitError(
                "Ray cannot start where the size of files is limited (ulimit -f): it keeps objects in large files. "
                "Raise the limit with ulimit -f unlimited, or build with --engine local."
            )
        for left in range(_STARTS if own else 1, 0, -1):
            try:
                _check_address(self.address)
                with _handlers_kept(), current_folder_named():
                    ray.init(
                        address=self.address or "local",
                        num_cpus=(self.workers or available_cores()) if own else None,
                        include_dashboard=False if own else None,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        job_config=_job_config(),
                        runtime_env={"env_vars": dict.fromkeys(_THREADS, "1")},
                    )
                break
            except Exception as error:  # Ray raises a plain Exception if it starts too slowly
                if left > 1:
                    continue
                where = "Ray cannot be started here" if own else f"the cluster at {self.address} cannot be used"
                raise EngineError(
                    f"{where}: {one_line(error).rstrip('.')}. A build runs on a node of its cluster (ray start), with "
                    "the same Ray and Python versions as the other nodes. Without --ray-address it starts its own Ray."
                ) from error
        _print_ray_errors_to_stderr()


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM that this process has: Ray replaces it by one that exits without a message."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        if callable(before) and error.code == signal.SIGTERM:
            before(signal.SIGTERM, None)
        raise
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _import_ray() -> Any:  # noqa: ANN401 - types are checked alike whether it is installed or not
    """Import Ray on first use: it is slow to import."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    return import_module("ray")


class _SafePath(list[str]):
    """Folders that Ray puts on the module search path of workers, without the current folder."""

    def extend(self, folders: Iterable[str]) -> None:
        """Add the folders that are not the current one."""
        super().extend(without_current_folder([*folders]))


def _job_config() -> Any:  # noqa: ANN401 - Ray's type
    """Keep the current folder off the module search path of workers: Ray imports modules before a task begins."""
    config = import_module("ray.job_config").JobConfig()
    # Ray has no public way to do this. If a later version renames the attribute, tasks still drop the folder.
    setattr(config, "_py_driver_sys_path", _SafePath())  # noqa: B010 - mypy sees no attribute
    return config


def _check_address(address: str | None) -> None:
    """Check that a server answers at an address. Ray itself tries for minutes, and may then end the process.

    Raises:
        OSError: no server answers.
        ValueError: it is not an address.
    """
    host, colon, port = (address or "").rpartition(":")
    if address in (None, "auto"):
        return
    if not (host and colon and port.isdecimal()) or "/" in host:
        raise ValueError(f"{address} is not of the form host:port")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT).close()


def _submit(function: Callable[[Any], Any], item: object) -> Any:  # noqa: ANN401 - Ray's reference
    """Submit a task. Its worker imports nothing from the current folder, which Ray puts on the path of workers."""
    ray = _import_ray()
    with current_folder_named():
        current = os.path.abspath(os.curdir)  # noqa: PTH100 - as Ray names it
    outside = [] if without_current_folder([current]) else ["", current, os.path.realpath(current)]
    task = (installed_version(), _RETRY_WAITS, ray.cloudpickle.dumps((function, item)))
    return ray.remote(num_cpus=1, max_retries=_RETRIES)(_do_task_safely).remote(outside, *task)


def _do_task_safely(outside: Sequence[str], *task: object) -> Any:  # noqa: ANN401 - an outcome
    """Drop folders from the module search path of a worker, then run a task.

    This function travels by value, so that the worker imports nothing before the folders are gone.
    """
    import sys  # noqa: PLC0415 - a function that travels by value has no globals
    from importlib import import_module  # noqa: PLC0415

    sys.path[:] = [entry for entry in sys.path if entry not in outside]
    # Loads `pipeline`, whatever else has its name.
    import_module("imagelake")
    from pipeline.engines.ray import do_task  # noqa: PLC0415

    return do_task(*task)  # type: ignore[arg-type] # they travel as they are


# Ray pickles functions of this module by value.
_do_task_safely.__module__ = "__main__"


def _wait_for(ref: Any) -> Outcome:  # noqa: ANN401 - Ray's reference
    ray = _import_ray()
    try:
        outcome: Outcome = ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        not_loaded = isinstance(error.cause, (ray.exceptions.RayError, ImportError))
        if not not_loaded:  # the return value of the function cannot be pickled
            raise error.cause from WorkerTraceback(error.traceback_str)
        raise EngineError(_not_loaded(error.cause)) from error
    except ray.exceptions.RayError as error:
        raise EngineError(
            f"a worker process died, and so did those that retried its task ({one_line(error).rstrip('.')}). Most "
            "likely it used too much memory: build again with fewer workers (--workers 1). Nothing was committed."
        ) from error
    return outcome


def _cancel(pending: Sequence[Any]) -> None:
    """Wait until tasks have ended, so that nothing writes into the lake any more. Long ones are cancelled.

    Ray aborts this process if it cancels a task in the moment in which a worker takes it (seen with 2.60: "Tried to
    complete task that was not pending"). Short tasks are taken all the time, so they are left to end.
    """
    if not pending:
        return
    ray = _import_ray()
    _CANCELLING.set()
    _, long = ray.wait(list(pending), num_returns=len(pending), timeout=_SHORT, fetch_local=False)
    for ref in long:
        ray.cancel(ref, force=True)
    if long:
        ray.wait(long, num_returns=len(long), timeout=_TIMEOUT, fetch_local=False)


# Set while tasks are cancelled: Ray then reports workers that died, and that is expected.
_CANCELLING = threading.Event()


def _print_ray_errors_to_stderr() -> None:
    """Print Ray's reports of dead workers on stderr. Ray itself prints them on stdout, among the results."""
    worker = import_module("ray._private.worker")

    def print_to_stdstream(data: dict[str, Any], **_: object) -> None:
        # Ids and hints where to find logs follow; they are cut off.
        text = "\n".join(data["lines"]).partition(" To troubleshoot")[0].partition(" Error:")[0]
        if not _CANCELLING.is_set():
            _print(f"ray: {text}")

    # Ray has no public way to do this. If a later version renames the function, Ray prints on stdout again.
    setattr(worker, print_to_stdstream.__name__, print_to_stdstream)


def _print(text: str) -> None:
    from tqdm import tqdm  # noqa: PLC0415 - it prints above the progress bar

    tqdm.write(text.strip(), file=sys.stderr)


def do_task(driver_version: str, waits: Sequence[float], pickled_task: bytes) -> Outcome:
    """Run a function on an item, in a worker.

    Errors are returned, not raised: the driver then raises the original error, and Ray prints nothing.

    Args:
        driver_version: version of imagelake that the driver runs.
        waits: seconds to wait before each further try after a transient error.
        pickled_task: the function and its argument.
    """
    output = StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        try:
            check_version(driver_version)
            function, item = _load(pickled_task)
            return Outcome(_call_with_retries(function, item, waits), None, "", output.getvalue())
        except Exception as error:  # noqa: BLE001 - all of them go to the driver
            return Outcome(None, picklable(error), traceback.format_exc(), output.getvalue())


def check_version(driver_version: str) -> None:
    """Check that the driver and this node run the same version of imagelake.

    Raises:
        EngineError: the versions differ.
    """
    if installed_version() != driver_version:
        raise EngineError(
            f"a node of the cluster runs imagelake {installed_version()}, this build {driver_version}. Install the "
            "same version on every node."
        )


def installed_version() -> str:
    """Return the version of imagelake that is installed here."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - only Ray needs it

    try:
        return version("imagelake")
    except PackageNotFoundError:
        return "(not installed)"


def _load(pickled_task: bytes) -> tuple[Callable[[Any], Any], object]:
    try:
        function, item = pickle.loads(pickled_task)  # noqa: S301 - made by `_submit`
    except (ImportError, AttributeError) as error:
        raise EngineError(_not_loaded(error)) from error
    return function, item


def _not_loaded(error: object) -> str:
    last_line = one_line(str(error).strip().splitlines()[-1]).rstrip(".")
    return (
        f"a worker cannot load its task: {last_line}. Install imagelake {installed_version()} and its dependencies on "
        "every node."
    )


def _call_with_retries(function: Callable[[Any], Any], item: object, waits: Sequence[float]) -> Any:  # noqa: ANN401
    for wait in waits:
        try:
            return function(item)
        except _TRANSIENT as error:
            sys.stderr.write(f"imagelake: {one_line(error).rstrip('.')}: trying again in {wait:g} s\n")
            time.sleep(wait)
    return function(item)
