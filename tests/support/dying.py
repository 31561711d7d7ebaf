"""A build that kills its own process when a function is entered for the nth time; run it with `Forked`."""

import os
import signal
from importlib import import_module
from pathlib import Path
from typing import Any

from making import recipe

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.recipe import Recipe


def two_sources(base: Path) -> Recipe:
    """A recipe of the sources `in.tar` and `in`, which keeps their files, and of the attributes `facts.csv`."""
    return recipe(
        base,
        {"uri": "in.tar"},
        {"uri": "in", "split": "test"},
        decode={"originals": "keep"},
        attributes=[{"uri": "facts.csv", "split": "train"}, {"patterns": {"number": r"(\d+)"}}],
        dedup={"rules": ["exact", "sign", "maxpool:4"]},
        split=[{"name": "main", "train": {"from": "train"}, "test": {"from": "test"}}],
    )


def build_and_die(base: str, module: str, name: str, nth: int) -> None:
    """Build, and die when `module.name` is entered for the nth time."""
    import_module("pipeline.builder.build").write_report = str  # type: ignore[attr-defined] # a stand-in
    owner: Any = import_module(module)
    *inner, last = name.split(".")
    for part in inner:
        owner = getattr(owner, part)
    real, entered = getattr(owner, last), 0

    def dying(*args: Any, **options: Any) -> Any:
        nonlocal entered
        entered += 1
        if entered == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)

    setattr(owner, last, dying)
    build(two_sources(Path(base)), engine=LocalEngine(1))
