"""What runs in a worker of the Ray engine: one piece of work, and what comes of it, be it an error."""

import pickle
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any, NamedTuple

from pipeline.errors import EngineError, StorageError

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
