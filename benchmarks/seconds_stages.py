"""One `imagelake build` of `seconds.py` in its own process: wall and processor time at the start of each stage.

`main` takes the time at which the process was started, and a recipe; it prints JSON. The command is the real one; only
its progress bar and two functions are wrapped.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
_USED = slice(11, 15)  # of /proc/PID/stat behind the name: own time, and that of children that have ended

# By stage: its name, and at its start the wall time, and the processor time of this process and of all others.
STAGES: list[tuple[str, float, float, float]] = []


def note(stage: str) -> None:
    """Record the start of a stage."""
    STAGES.append((stage, time.time(), time.process_time(), _other_processes()))


def _other_processes() -> float:
    """Add up the processor time of the other processes of this session, in seconds."""
    session, used = os.getsid(0), 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                values = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            if int(values[3]) == session:
                used += sum(map(int, values[_USED]))
    return used / _TICKS


def _noted(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **options: Any) -> Any:
        note(stage)
        return function(*args, **options)

    return wrapped


def main() -> None:
    """Build, and print the records."""
    STAGES.append(("start Python, import the command", float(sys.argv[1]), 0.0, 0.0))
    import pipeline.cli.build  # noqa: PLC0415 - its imports are a stage

    note("import the build")
    import pipeline.cli  # noqa: PLC0415 - as above
    from pipeline.builder import build as flow  # noqa: PLC0415 - as above
    from pipeline.lake.releases import publish  # noqa: PLC0415 - as above
    from pipeline.progress import Progress  # noqa: PLC0415 - as above

    class Noted(Progress):
        """A bar that records when each stage begins."""

        def stage(self, title: str, total: int | None = None, *, rejects: bool = False) -> None:
            note(title)
            super().stage(title, total, rejects=rejects)

        def step(self, title: str) -> None:
            note(title)
            super().step(title)

    replaced = {"Progress": Noted, "publish": _noted("publish the release", publish)}
    for name, value in replaced.items():
        setattr(flow, name, value)
    sys.argv = ["imagelake", "build", sys.argv[2], "--json"]
    # The output goes nowhere: stdout is for the records.
    stdout = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    note("find and compare the sources")
    try:
        pipeline.cli.main()
    finally:
        note("")
        os.write(stdout, json.dumps(STAGES).encode())


if __name__ == "__main__":
    main()
