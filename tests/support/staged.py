"""Run a command of imagelake in a process that reports its stages, so that a test can kill it in a given stage.

The process writes `> stage` to a pipe when a stage begins and `< stage` when it ends. `Staged` controls it from its
parent.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from tempfile import TemporaryFile
from typing import IO, Any

from forked import Forked, run_command

# The name of each stage, and the function that runs it.
STAGES = {
    "sweep": ("pipeline.lake.writers.heartbeats", "_delete_files_of_dead_writers"),
    "mark": ("pipeline.lake.writers.heartbeats", "_make_locked"),
    "plan": ("pipeline.builder.build", "plan_ingest"),
    "decode": ("pipeline.builder.build", "decode_sources"),
    "undo": ("pipeline.builder.build", "undo_half_commits"),
    "attributes": ("pipeline.builder.build", "join_attributes"),
    "index": ("pipeline.builder.build", "index_images"),
    "pairs": ("pipeline.builder.build", "compare_images"),
    "clusters": ("pipeline.builder.build", "cluster_images"),
    "measure": ("pipeline.builder.build", "measure_pictures"),
    "issues": ("pipeline.builder.build", "find_issues"),
    "splits": ("pipeline.builder.build", "make_splits"),
    "baselines": ("pipeline.builder.build", "score_baselines"),
    "release": ("pipeline.builder.build", "publish"),
    "report": ("pipeline.builder.build", "try_to_write_report"),
    "vacuum": ("pipeline.maintenance", "delete_unneeded_files"),
    "give up": ("pipeline.maintenance", "delete_releases"),
    "pin": ("pipeline.export", "_pin_release"),
}
COMMITS = (
    *("images", "originals", "index", "rejects", "shards", "attributes", "pairs", "clusters", "measurements"),
    *("issues", "splits", "misses", "scores", "releases"),
)
# Taking the lock or waiting for it; committing decoded images; the same if sources are dropped.
OTHERS = ("lock", "ingest", "prune")
EVERY = (*STAGES, *OTHERS, *(f"commit {name}" for name in COMMITS))


class Staged:
    """A running command, which a test can kill.

    Args:
        words: the arguments of `imagelake`.
        report: whether a build draws its report.
    """

    def __init__(self, *words: object, report: bool) -> None:
        reading, writing = os.pipe()
        self._errors = TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = Forked(
            "staged:run_staged",
            list(map(str, words)),
            {"report": report},
            handles=[writing],
            stderr=self._errors.fileno(),
        )
        os.close(writing)
        self._told: IO[str] = os.fdopen(reading, encoding="utf-8")
        self.said = ""
        self.spans: dict[str, float] = {}
        self._open: list[tuple[str, float]] = []

    def until(self, stage: str) -> bool:
        """Wait until a stage begins; return False if it never does."""
        return any(self._take(line) == stage for line in self._told)

    def end(self) -> int:
        """Wait for the end; return the exit code. If it is not 0, print the stderr of the command."""
        self._drain()
        code = self._close()
        if code:
            sys.stderr.write(f"\n{self.said}\n")
        return code

    def kill(self) -> str:
        """Kill the process; return its stage, "between stages", or "over" if it had ended."""
        self._process.kill()
        self._drain()
        if self._close() != -signal.SIGKILL:
            return "over"
        return self._open[-1][0] if self._open else "between stages"

    def _drain(self) -> None:
        for line in self._told:
            self._take(line)

    def _close(self) -> int:
        self._told.close()
        code = self._process.wait()
        self._errors.seek(0)
        self.said = self._errors.read().decode()
        self._errors.close()
        return code

    def _take(self, line: str) -> str | None:
        """Record a line; return the stage if one begins. The last line of a killed process may be incomplete."""
        if not line.endswith("\n"):
            return None
        kind, name, when = line.rstrip("\n").split("\t")
        if kind == ">":
            self._open.append((name, float(when)))
            return name
        stage, began = self._open.pop()
        self.spans[stage] = max(self.spans.get(stage, 0.0), float(when) - began)
        return None


@contextmanager
def staging(handle: int, name: str) -> Iterator[None]:
    os.write(handle, f">\t{name}\t{time.monotonic()}\n".encode())
    yield
    os.write(handle, f"<\t{name}\t{time.monotonic()}\n".encode())


def stage(handle: int, module: str, function: str, name: Callable[..., str]) -> None:
    """Make a function report its begin and end as a stage, whose name may depend on the arguments."""
    owner: Any = import_module(module)
    *inner, last = function.split(".")
    for part in inner:
        owner = getattr(owner, part)
    real = getattr(owner, last)

    def told(*args: Any, **options: Any) -> Any:
        with staging(handle, name(*args)):
            return real(*args, **options)

    setattr(owner, last, told)


def run_staged(handle: int, words: list[str], *, report: bool) -> None:
    """Run a command that writes its stages to a pipe."""
    if not report:
        import_module("pipeline.builder.build").write_report = str  # type: ignore[attr-defined] # a stand-in
    for name, (module, function) in STAGES.items():
        stage(handle, module, function, lambda *_, name=name: name)
    stage(
        handle,
        "pipeline.builder.build",
        "commit_sources",
        lambda _, decoded: "prune" if len(decoded.plan.dropped) else "ingest",
    )
    stage(
        handle,
        "deltalake",
        "DeltaTable.create_write_transaction",
        lambda table, *_: f"commit {table.table_uri.rstrip('/').rpartition('/')[2]}",
    )
    flow = import_module("pipeline.builder.build")
    real = flow.transaction

    @contextmanager
    def locked(*args: Any) -> Iterator[Any]:
        with staging(handle, "lock"):
            taken = real(*args)
            lake = taken.__enter__()
        try:
            yield lake
        finally:
            taken.__exit__(*sys.exc_info())

    flow.transaction = locked  # type: ignore[attr-defined] # a stand-in
    run_command(words, report=True)
