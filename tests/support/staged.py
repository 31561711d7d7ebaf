"""A command of imagelake in a process of its own that tells in which stage it is, to be killed there.

The process writes `> stage` to a pipe where a stage begins and `< stage` where it ends. `Staged` is that process, as
its parent sees it.
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

# What a stage is called, and the function that it is.
STAGES = {
    "sweep": ("pipeline.lake.writers.heartbeats", "_delete_files_of_dead_writers"),
    "mark": ("pipeline.lake.writers.heartbeats", "_make_locked"),
    "plan": ("pipeline.builder.build", "plan_ingest"),
    "decode": ("pipeline.builder.build", "decode_sources"),
    "undo": ("pipeline.builder.build", "undo_half_commits"),
    "index": ("pipeline.builder.build", "index_images"),
    "pairs": ("pipeline.builder.build", "compare_images"),
    "clusters": ("pipeline.builder.build", "cluster_images"),
    "splits": ("pipeline.builder.build", "make_splits"),
    "baselines": ("pipeline.builder.build", "score_baselines"),
    "release": ("pipeline.builder.build", "publish"),
    "report": ("pipeline.builder.build", "write_report"),
    "vacuum": ("pipeline.maintenance", "delete_unneeded_files"),
    "give up": ("pipeline.maintenance", "delete_releases"),
    "pin": ("pipeline.export", "_pin_release"),
}
COMMITS = ("images", "index", "rejects", "shards", "pairs", "clusters", "splits", "misses", "scores", "releases")
# Taking the lock or waiting for it; committing what was decoded; the same where sources are dropped.
OTHERS = ("lock", "ingest", "prune")
EVERY = (*STAGES, *OTHERS, *(f"commit {name}" for name in COMMITS))


class Staged:
    """A command that runs, to be killed.

    Args:
        words: the words after `imagelake`.
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
        """Wait until a stage begins; tells whether it ever does."""
        return any(self._take(line) == stage for line in self._told)

    def end(self) -> int:
        """Let it end by itself; tells with which exit code. What it says where that is not 0 is shown."""
        self._drain()
        code = self._close()
        if code:
            sys.stderr.write(f"\n{self.said}\n")
        return code

    def kill(self) -> str:
        """End it at once; tells in which stage it was, or that it was between two."""
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
        """Note what it told; the stage, where one began. Killed while it wrote, it told half of a line."""
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
    """Let a function tell when it begins and ends, under a name that may depend on what it is given."""
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
