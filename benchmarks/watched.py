"""Run a command and measure its time and the memory of all its processes."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import NamedTuple

_LOOK_EVERY = 0.1


class Ran(NamedTuple):
    """A finished command.

    Attributes:
        seconds: wall time.
        megabytes: highest sum of its processes' proportional shares (PSS): shared memory is counted once; NaN
            if it was not measured.
        output: its stdout.
    """

    seconds: float
    megabytes: float
    output: str


def run(command: Sequence[str], folder: Path | None = None, *, memory: bool = True) -> Ran:
    """Run a command and wait for it, in a folder if one is given.

    Measuring the memory takes a tenth of a core; without it, times are of the command alone.

    Raises:
        SystemExit: it failed; its stderr is printed.
    """
    peak, done = [0.0], threading.Event()
    started = time.perf_counter()
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        watcher = threading.Thread(target=_watch, args=(process.pid, peak, done))
        if memory:
            watcher.start()
        output, errors = process.communicate()
        seconds = time.perf_counter() - started
        done.set()
        if memory:
            watcher.join()
    if process.returncode:
        sys.stderr.write(errors)
        raise SystemExit(f"bench: {' '.join(command)} ended with exit code {process.returncode}")
    return Ran(seconds, peak[0] if memory else nan, output)


def _watch(session: int, peak: list[float], done: threading.Event) -> None:
    while not done.wait(_LOOK_EVERY):
        peak[0] = max(peak[0], tree_megabytes(session))


def tree_megabytes(session: int) -> float:
    """Sum the proportional shares of memory of all processes of a session."""
    members = [entry for entry in Path("/proc").iterdir() if entry.name.isdecimal() and _session(entry) == session]
    return sum(map(_megabytes, members))


def _session(entry: Path) -> int:
    try:
        return os.getsid(int(entry.name))
    except ProcessLookupError:
        return 0


def _megabytes(entry: Path) -> float:
    try:
        lines = (entry / "smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:  # it ended meanwhile
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
