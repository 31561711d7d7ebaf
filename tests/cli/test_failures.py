import signal

import click
import pytest

from pipeline.cli.failures import Terminated, failure
from pipeline.errors import EngineError


def aborted(cause: BaseException | None) -> click.Abort:
    """As click raises it."""
    error = click.Abort()
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (aborted(KeyboardInterrupt()), 130, "imagelake: stopped. The lake is as of its last release"),
        (aborted(None), 130, "imagelake: stopped."),
        (aborted(Terminated(signal.SIGTERM)), 143, "imagelake: stopped by SIGTERM."),
        (EngineError("worker process 7 was killed"), 1, "imagelake: worker process 7 was killed"),
        (MemoryError(), 1, "imagelake: there is not enough memory"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), 1, "Set TMPDIR"),
    ],
)
def test_an_error_of_the_surroundings_is_one_line(error: BaseException, code: int, text: str) -> None:
    found = failure(error)
    assert found is not None
    assert found.code == code
    assert text in found.line


@pytest.mark.parametrize("error", [aborted(EOFError()), ValueError("a bug")])
def test_a_bug_keeps_its_traceback(error: BaseException) -> None:
    assert failure(error) is None
