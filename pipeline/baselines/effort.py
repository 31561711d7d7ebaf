"""What a fit costs: wall time, and the memory that the process came to hold."""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

Made = TypeVar("Made")

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Effort(NamedTuple):
    """What something took.

    Attributes:
        seconds: wall time.
        memory: bytes that the process held at most, above what it held before; None where the system does not tell.
    """

    seconds: float
    memory: int | None


def measured(make: Callable[[], Made]) -> tuple[Made, Effort]:
    """Do something, and tell what it took.

    Linux tells how much memory a process held at most since it was last asked to forget. Where it may not be asked, the
    most since the start of the process serves: too little is told of what stays below an earlier height.
    """
    before = _forget()
    started = time.perf_counter()
    made = make()
    seconds = time.perf_counter() - started
    held = _held("VmHWM")
    return made, Effort(seconds, None if before is None or held is None else max(0, held - before))


def _forget() -> int | None:
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:  # no Linux, or not allowed
        return None if _held("VmHWM") is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return _held("VmRSS")


def _held(field: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)
