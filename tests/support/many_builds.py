"""Run many writers and readers on one lake, each in its own process.

A writer changes its folder of pictures and builds, in a loop; some writers share a folder. A reader opens the newest
and a random release, checks the laws, and checks that no release has changed since it was read before. All stop when
the file `stop` exists. Then each prints, as JSON, how many builds or reads it did.
"""

import json
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from forked import Forked
from lakes import list_releases
from making import as_folder, encoded, pictures, recipe
from together import digest, laws

from pipeline import storage
from pipeline.builder.build import build
from pipeline.builder.publish import ReportResult
from pipeline.engines.local import LocalEngine
from pipeline.errors import BusyLakeError, LakeError
from pipeline.lake_handle import Lake
from pipeline.maintenance import vacuum
from pipeline.recipe import Recipe

# Few, so that sources have pictures in common.
_PICTURES = 80
SPLIT = {"name": "main", "sanitize": "exact", "train": {"from": "train"}, "test": {"from": "test"}}


class Counts(NamedTuple):
    """How many builds and reads all writers and readers did."""

    releases: int
    commits: int
    reads: int
    vacuums: int
    outcomes: "Counter[str]"

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count} builds {outcome}" for outcome, count in sorted(self.outcomes.items()))
        return (
            f"{self.releases} releases, {self.commits} commits over all tables, {outcomes}, "
            f"{self.reads} releases read, {self.vacuums} vacuums"
        )


def source(number: int) -> dict[str, str]:
    return {"uri": f"s{number}", "split": "test" if number % 4 > 1 else "train", "dataset": f"d{number}"}


def of(base: Path, root: str, *sources: int) -> Recipe:
    parts = {"dedup": {"rules": ["exact", "sign"]}, "split": [SPLIT]}
    return recipe(base, *map(source, sources), lake={"root": root}, **parts)


def picture(number: int) -> bytes:
    return encoded(pictures(1, number, (8, 8))[0])


def change(folder: Path, chance: random.Random) -> None:
    """Add, remove or rewrite one or two pictures."""
    for _ in range(chance.randint(1, 2)):
        there = sorted(folder.rglob("*.png"))
        kind = chance.choice(("add", "remove", "rewrite") if len(there) > 4 else ("add",))
        if kind == "remove":
            chance.choice(there).unlink(missing_ok=True)
        elif kind == "rewrite":
            chance.choice(there).write_bytes(picture(chance.randrange(_PICTURES)))
        else:
            name = f"{chance.choice('AB')}/{chance.randrange(10**9)}.png"
            as_folder(folder, {name: picture(chance.randrange(_PICTURES))})


def build_on(base: Path, root: str, number: int, shared: int) -> dict[str, Any]:
    """Change the sources and build until the file `stop` exists; return the number of builds by outcome."""
    chance, counts = random.Random(f"{number}"), Counter[str]()
    while not (base / "stop").exists():
        # A writer that shares a folder sometimes does not change it, so that both read the same content.
        if number == shared or chance.random() < 0.5:
            change(base / f"s{shared}", chance)
        try:
            done = build(of(base, root, shared), engine=LocalEngine(1)).done
        except LakeError as error:
            if "another build changed" not in str(error):
                raise
            counts["refused"] += 1
        else:
            same = any("committed the same shards" in item.reason for item in done)
            counts["dropped as the same" if same else "landed" if done else "idle"] += 1
    return dict(counts)


def read_on(base: Path, root: str, number: int) -> dict[str, Any]:
    """Read until the file `stop` exists; return a digest of every release that was read."""
    chance, seen, reads, last = random.Random(f"reader {number}"), dict[str, str](), 0, 0
    while not (base / "stop").exists() or not reads:
        lake = Lake(root)
        assert lake.release >= last, "the newest release was newer before"
        last = lake.release
        for opened in (lake, lake.at(chance.randint(1, last))):
            assert not (wrong := laws(opened)), (opened.release, wrong)
            found = digest(opened)
            assert seen.setdefault(str(opened.release), found) == found, f"release {opened.release} has changed"
            reads += 1
    return {"seen": seen, "reads": reads}


def run_writers_and_readers(  # noqa: PLR0913 - keyword arguments
    base: Path, root: str, *, writers: int, readers: int, releases: int, pause: float
) -> Counts:
    """Run writers and readers on a lake until it has a number of releases, then check their results against it.

    A third of the writers share the folder of the writer before them.
    """
    folders = [number - 1 if number % 3 == 1 else number for number in range(writers)]
    for number in sorted(set(folders)):
        as_folder(base / f"s{number}", {f"A/{i}.png": picture(10 * number + i) for i in range(6)})
    build(of(base, root, *sorted(set(folders))), engine=LocalEngine(1))
    calls: list[tuple[str, int, int]] = [("writer", number, folders[number]) for number in range(writers)]
    calls += [("reader", number, 0) for number in range(readers)]
    files = [base / f"{kind}{number}.json" for kind, number, _ in calls]
    runs = [
        Forked("many_builds:work", base, root, file, call, environment=dict(os.environ))
        for file, call in zip(files, calls, strict=True)
    ]
    vacuums = 0
    try:
        while len(list_releases(root)) < releases and not any(run.ended() for run in runs):
            time.sleep(pause)
            vacuums += vacuumed(root)
    finally:
        (base / "stop").touch()
    assert [run.wait() for run in runs] == [0] * len(runs)
    build(of(base, root, *sorted(set(folders))), engine=LocalEngine(1))
    found = [json.loads(file.read_text()) for file in files]
    return sum_counts(root, found[:writers], found[writers:], vacuums)


def vacuumed(root: str) -> bool:
    try:
        vacuum(root, older_than_hours=0, dry_run=False)
    except BusyLakeError:
        return False
    return True


def sum_counts(root: str, wrote: list[dict[str, int]], read: list[dict[str, Any]], vacuums: int) -> Counts:
    """Sum the counts, and check that no release has changed since a reader read it."""
    releases = list_releases(root)["release"].to_list()
    assert releases == list(range(1, len(releases) + 1))
    seen = {number: {counts["seen"].get(str(number)) for counts in read} - {None} for number in releases}
    for number, digests in seen.items():
        assert digests <= {digest(Lake(root, number))}, f"release {number} has changed"
    commits = sum("/_delta_log/0" in path and path.endswith(".json") for path in storage.list_files(root))
    outcomes = sum((Counter(counts) for counts in wrote), Counter[str]())
    return Counts(len(releases), commits, sum(counts["reads"] for counts in read), vacuums, outcomes)


def work(base: str, root: str, file: str, call: tuple[str, int, int]) -> None:
    """Write or read until the file `stop` exists, then write the counts to a file as JSON."""
    kind, number, shared = call
    # Drawing the report takes longer than everything else.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.builder.build.try_to_write_report", lambda lake: ReportResult(lake.root))
        folder = Path(base)
        done = build_on(folder, root, number, shared) if kind == "writer" else read_on(folder, root, number)
        Path(file).write_text(json.dumps(done))
