"""The Ray engine: tasks on this machine's cores or on a cluster, a bounded number of them in flight.

What runs in a worker of the Ray engine: one piece of work, and what comes of it, be it an error.
"""

import logging
import os
import pickle
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from typing import Any, NamedTuple, TypeVar

from pipeline.engines.local import interrupts_deferred
from pipeline.errors import EngineError, MissingExtraError, StorageError

# What may pass by itself; whatever else is raised is not tried again.
_TRANSIENT = (StorageError, ConnectionError, TimeoutError)


class Outcome(NamedTuple):
    """What came of a piece of work.

    Attributes:
        value: what the function returned.
        error: what it raised instead, or None.
        trace: the error's traceback.
        said: what was printed meanwhile, on stdout and stderr.
    """

    value: Any
    error: Exception | None
    trace: str
    said: str


class InWorker(Exception):  # noqa: N818 - shown as the cause of an error, and never caught
    """The traceback that an error had in its worker."""

    def __str__(self) -> str:
        """Show it as `concurrent.futures` does."""
        return f'\n"""\n{self.args[0]}"""'


def do_task(driver: str, waits: Sequence[float], function: Callable[[Any], Any], item: object) -> Outcome:
    """Do one piece of work.

    Errors are returned, not raised: so they come out as what they were, and Ray prints none of them.

    Args:
        driver: the imagelake that the driver runs.
        waits: seconds to wait between tries, where an error may pass.
        function: what to do.
        item: with what.
    """
    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            check_version(driver)
            return Outcome(_patiently(function, item, waits), None, "", said.getvalue())
        except Exception as error:  # noqa: BLE001 - all of them go to the driver
            return Outcome(None, _picklable(error), traceback.format_exc(), said.getvalue())


def check_version(driver: str) -> None:
    """Refuse to work for another imagelake.

    Args:
        driver: the imagelake that the driver runs.

    Raises:
        EngineError: it is not the one that is installed here.
    """
    if installed() != driver:
        raise EngineError(
            f"a node of the cluster runs imagelake {installed()}, this build {driver}. Install the same on every node."
        )


def installed() -> str:
    """Tell the version of imagelake that is installed here."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - not every command waits for it

    try:
        return version("imagelake")
    except PackageNotFoundError:
        return "that is not installed"


def one_line(error: object) -> str:
    """Say in one line what an error says."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _patiently(function: Callable[[Any], Any], item: object, waits: Sequence[float]) -> Any:  # noqa: ANN401
    for wait in waits:
        try:
            return function(item)
        except _TRANSIENT as error:
            sys.stderr.write(f"imagelake: {one_line(error)}: tried again\n")
            time.sleep(wait)
    return function(item)


def _picklable(error: Exception) -> Exception:
    """Keep an error that gets over whole, and name any other: its traceback goes along."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - just made
    except Exception:  # noqa: BLE001 - whatever it raises
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


Item = TypeVar("Item")
Result = TypeVar("Result")

# Tasks in flight for every core of the cluster: while one runs, the input of the next travels.
_AHEAD = 2
# Seconds after which the cores of a cluster are counted again: nodes come and go.
_RECOUNT = 5.0
# How often work is done again whose worker died, or whose node did.
_RETRIES = 3
# Seconds between tries, in the worker, of what may pass by itself.
_WAITS = (1, 4, 16)
# Seconds to wait for a cluster to answer, and for the end of tasks that were cancelled.
_PATIENCE = 30
# Read when Ray is imported. By itself it tries work again for ever for which memory does not suffice.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_oom_retries": str(_RETRIES),
    "RAY_raylet_start_wait_time_s": "40",
}
# How often to try to start Ray: it gives up where its agents take 15 seconds, as they do on a busy machine
# (github.com/ray-project/ray/issues/65983).
_STARTS = 3
# A worker has one core.
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "POLARS_MAX_THREADS")


class RayEngine:
    """Run functions as tasks of Ray.

    Without an address, a Ray of this process's own is started when it is first needed, and ended with the process. A
    Ray that the process is connected to already is used as it is.

    The nodes of a cluster need the same imagelake as this process, which every task checks, and storage that all of
    them see: the lake, and sources other than downloads. This process must run on one of the nodes.

    A task whose worker or node dies is done again elsewhere, `_RETRIES` times at most; what it wrote before belongs to
    nothing. An error is tried again only where it may pass, after a pause and by the same worker.

    Args:
        workers: how many cores the Ray of this process has; None for every one that it may use. Of a cluster, how many
            tasks are in flight.
        address: of a cluster, as `ray start` tells it, or "auto"; None for `RAY_ADDRESS` or, without it, none.

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
        self._cores, self._counted = 0, -_RECOUNT
        self._told: set[str] = set()

    @property
    def shares_disk(self) -> bool:
        """Whether workers are on this machine."""
        return self.address is None

    @property
    def pieces(self) -> int:
        """How many tasks can run at once.

        Raises:
            EngineError: the cluster does not answer.
        """
        if self.address is None:
            return self.workers or len(os.sched_getaffinity(0))
        self._connect()
        return min(self.workers or self._count(), self._count())

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """Yield `function(item)` for every item, in the order of the items.

        At most two items a core, or `workers` items with a cluster, are taken and not yet handed back as results.
        Closed before the end, as by ctrl-C, it ends the tasks and waits until they are gone. What workers print comes
        out on stderr.

        Args:
            function: a picklable function.
            items: picklable items; consumed lazily, in this process.

        Raises:
            EngineError: Ray cannot be started or reached, workers die again and again, or run another imagelake.
        """
        waiting: deque[Any] = deque()
        try:
            for item in items:
                self._connect()
                with interrupts_deferred():
                    task = _ray().remote(num_cpus=1, max_retries=_RETRIES)(do_task)
                    waiting.append(task.remote(installed(), _WAITS, function, item))
                while len(waiting) >= self._room():
                    yield self._next(waiting)
            while waiting:
                yield self._next(waiting)
        finally:
            _cancel(waiting)

    def _next(self, waiting: deque[Any]) -> Any:  # noqa: ANN401 - what the function returns
        outcome = _outcome_of(waiting[0])
        # Only now: interrupted before, it is still among those to cancel.
        waiting.popleft()
        if outcome.said and outcome.said not in self._told:
            self._told.add(outcome.said)
            _tell(outcome.said)
        if outcome.error is not None:
            raise outcome.error from InWorker(outcome.trace)
        return outcome.value

    def _room(self) -> int:
        if self.workers and self.address:
            return self.workers
        return max(2, _AHEAD * self._count())

    def _count(self) -> int:
        if time.monotonic() - self._counted >= _RECOUNT:
            nodes = [node for node in _ray().nodes() if node["Alive"]]
            self._cores = int(sum(node["Resources"].get("CPU", 0) for node in nodes))
            self._counted = time.monotonic()
        return max(1, self._cores)

    def _connect(self) -> None:
        ray = _ray()
        _QUIET.clear()
        if ray.is_initialized():
            return
        own = self.address is None
        for left in range(_STARTS if own else 1, 0, -1):
            try:
                _knock(self.address)
                ray.init(
                    address=self.address or "local",
                    num_cpus=(self.workers or len(os.sched_getaffinity(0))) if own else None,
                    include_dashboard=False if own else None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    runtime_env={"env_vars": dict.fromkeys(_THREADS, "1")},
                )
                break
            except Exception as error:  # it raises just that where it starts too slowly
                if left > 1:
                    continue
                where = "Ray cannot be started here" if own else f"the cluster at {self.address} cannot be used"
                raise EngineError(
                    f"{where}: {one_line(error)}. A build runs on a node of its cluster (ray start), with the same Ray "
                    "and Python as the others; without --ray-address it starts a Ray of its own."
                ) from error
        _listen()


def _knock(address: str | None) -> None:
    """Make sure that somebody answers at an address: Ray itself tries for minutes, and may end the process then.

    Raises:
        OSError: nobody does.
        ValueError: it is no address.
    """
    host, colon, port = (address or "").rpartition(":")
    if address in (None, "auto"):
        return
    if not (host and colon and port.isdecimal()) or "/" in host:
        raise ValueError(f"{address} is not of the form host:port")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def _ray() -> Any:  # noqa: ANN401 - types are checked alike whether it is installed or not
    """Import Ray: only those who use it wait for it."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    return import_module("ray")


def _outcome_of(ref: Any) -> Outcome:  # noqa: ANN401 - Ray's reference
    ray = _ray()
    try:
        outcome: Outcome = ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        lost = isinstance(error.cause, ray.exceptions.RayError) or "failed to import" in str(error.cause)
        if not lost:  # what the function returned cannot be pickled
            raise error.cause from InWorker(error.traceback_str)
        last = one_line(str(error.cause).strip().splitlines()[-1])
        raise EngineError(
            f"a worker cannot load its work: {last}. Install imagelake {installed()} and all that it needs on every "
            "node."
        ) from error
    except ray.exceptions.RayError as error:
        raise EngineError(
            f"a worker process died, and so did those that took over its work ({one_line(error)}). Most likely it was "
            "killed for using too much memory: build again with fewer workers (--workers 1). Nothing was committed."
        ) from error
    return outcome


def _cancel(waiting: Sequence[Any]) -> None:
    """End tasks and wait until they are gone: nobody writes into the lake any more."""
    if not waiting:
        return
    ray = _ray()
    _QUIET.set()  # their workers die by our own hand
    for ref in waiting:
        ray.cancel(ref, force=True)
    ray.wait(list(waiting), num_returns=len(waiting), timeout=_PATIENCE, fetch_local=False)


# Whether what Ray has to say interests nobody.
_QUIET = threading.Event()


def _listen() -> None:
    """Let what Ray says of workers that died come out on stderr: by itself it prints that among the results."""
    worker = import_module("ray._private.worker")

    def print_to_stdstream(data: dict[str, Any], **_: object) -> None:
        # Behind this come ids and where to look for more.
        text = "\n".join(data["lines"]).partition(" To troubleshoot")[0].partition(" Error:")[0]
        if not _QUIET.is_set():
            _tell(f"ray: {text}")

    # There is no public way. A Ray to come that has another name for it prints as it likes.
    setattr(worker, print_to_stdstream.__name__, print_to_stdstream)


def _tell(text: str) -> None:
    from tqdm import tqdm  # noqa: PLC0415 - it moves the bar out of the way

    tqdm.write(text.strip(), file=sys.stderr)
