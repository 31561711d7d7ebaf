"""What a fit costs: wall time, and the memory that the process held."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

Made = TypeVar("Made")

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Effort(NamedTuple):
    """What something took.

    Attributes:
        seconds: wall time.
        memory: bytes that the process held at most meanwhile; None where the system does not tell.
    """

    seconds: float
    memory: int | None


def measured(make: Callable[[], Made]) -> tuple[Made, Effort]:
    """Do something, and tell what it took.

    Linux tells how much memory a process held at most since it was last asked to forget. Where it may not be asked,
    that is since the process began.
    """
    with suppress(OSError):
        _RESET.write_text("5", encoding="ascii")
    started = time.perf_counter()
    made = make()
    return made, Effort(time.perf_counter() - started, _peak())


def _peak() -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:  # no Linux
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
