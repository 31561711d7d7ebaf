"""One build of `scale.py` in its own process: the start of each stage and its number of tasks.

`main` takes a recipe and prints JSON. The build is the real one; only its progress bar and its engine are wrapped.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from lakes import files, versions

from pipeline.builder import build as flow
from pipeline.progress import Progress
from pipeline.recipe import read_recipe

Item = TypeVar("Item")
Result = TypeVar("Result")
STAGES: list[tuple[str, float]] = []
TASKS: Counter[str] = Counter()


class Noted(Progress):
    """A bar that records when each stage begins."""

    def stage(self, title: str, total: int | None = None, *, rejects: bool = False) -> None:
        """Record it."""
        STAGES.append((title, time.time()))
        super().stage(title, total, rejects=rejects)

    def step(self, title: str) -> None:
        """Record it."""
        STAGES.append((title, time.time()))
        super().step(title)


class Counting:
    """An engine that counts tasks by stage."""

    def __init__(self) -> None:
        self._engine = flow.local_engine()

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """Count the items, and call the engine."""
        yield from self._engine.map(function, self._counted(items))

    def _counted(self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            TASKS[STAGES[-1][0]] += 1
            yield item

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def main() -> None:
    """Build, and print the records."""
    setattr(flow, "Progress", Noted)  # noqa: B010 - the bench listens
    recipe = read_recipe(Path(sys.argv[1]))
    STAGES.append(("look at the sources", time.time()))
    engine: Any = Counting()
    built = flow.build(recipe, engine=engine)
    STAGES.append(("", time.time()))
    root = built.root
    tables = {
        name: [sum(p.size for p in files(root, name)), sum(p.rows for p in files(root, name))]
        for name in versions(root)
    }
    json.dump({"stages": STAGES, "tasks": TASKS, "tables": tables, "images": built.images + built.rejects}, sys.stdout)


if __name__ == "__main__":
    main()
