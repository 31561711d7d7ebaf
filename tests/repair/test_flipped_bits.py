"""Flip random bits of every file of a lake: reads are right or an error, verify names the file, a repair mends it."""

import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_lakes import Case, copy_of, flip
from deltalake import DeltaTable
from lakes import files

import schemas
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError
from pipeline.export import export
from pipeline.lake_handle import Lake

pytestmark = pytest.mark.slow

Arrays = list[np.ndarray[Any, Any]]
# The tables whose files are damaged: all, or those named by the environment variable, such as "originals attributes".
TABLES = os.environ.get("IMAGELAKE_FLIPPED_TABLES", " ".join(schemas.TABLES)).split()
# A round flips a bit of one file of each of so many tables, so that verify and repair are shared.
TOGETHER = 6


def read_arrays(root: str) -> Arrays:
    return [array for role in ("train", "test") for array in Lake(root).arrays("main", role)]


def read_feed(root: str) -> Arrays:
    return [array for batch in Lake(root).batches("main", "train", batch_size=16) for array in batch]


def read_export(root: str) -> Arrays:
    target = Path(root).with_name("again")
    shutil.rmtree(target, ignore_errors=True)
    export(root, "main", target, "npz", engine=LocalEngine(1), pinned=False)
    with np.load(target / "main.npz") as values:
        return [values[name] for name in sorted(values.files)]


def read_originals(root: str) -> Arrays:
    return [*Lake(root).arrays("main", "train", size=(8, 8), decode="original")]


def read_files(root: str) -> Arrays:
    """Export original files and a manifest with attributes."""
    target = Path(root).with_name("again_as_files")
    shutil.rmtree(target, ignore_errors=True)
    export(root, "main", target, "imagefolder", engine=LocalEngine(1), pinned=False)
    made = sorted(file for file in target.rglob("*") if file.is_file())
    return [np.frombuffer(str(file.relative_to(target)).encode() + file.read_bytes(), np.uint8) for file in made]


READERS: dict[str, Callable[[str], Arrays]] = {
    "arrays": read_arrays,
    "feed": read_feed,
    "export": read_export,
    "originals": read_originals,
    "files": read_files,
}


def data_files(case: Case, table: str) -> list[Path]:
    return [Path(case.root, table, part.path) for part in files(case.root, table)]


def commits(case: Case, table: str) -> list[Path]:
    return sorted(Path(case.root, table, "_delta_log").glob("*.json"))


def checkpoints(case: Case, table: str) -> list[Path]:
    DeltaTable(Path(case.root, table)).create_checkpoint()
    return sorted(Path(case.root, table, "_delta_log").glob("*.parquet"))


def pointers(case: Case, table: str) -> list[Path]:
    DeltaTable(Path(case.root, table)).create_checkpoint()
    return [Path(case.root, table, "_delta_log", "_last_checkpoint")]


KINDS = {"data": data_files, "commit": commits, "checkpoint": checkpoints, "pointer": pointers}


# If damaged text is not UTF-8, Polars reports it as an exception that cannot be raised, before it raises another one.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.stress
@pytest.mark.parametrize(("kind", "rounds"), [("data", 100), ("commit", 100), ("checkpoint", 30), ("pointer", 30)])
def test_flipped_bits_of_every_table(whole_case: Case, tmp_path: Path, kind: str, rounds: int) -> None:
    flips(whole_case, tmp_path, kind, rounds)


@pytest.mark.parametrize("kind", ["data", "commit", "checkpoint"])
def test_some_flipped_bits_of_every_table(whole_case: Case, tmp_path: Path, kind: str) -> None:
    flips(whole_case, tmp_path, kind, 1)


def flips(whole_case: Case, tmp_path: Path, kind: str, rounds: int) -> None:
    """Flip bits in files of one kind, `rounds` in each table, and count the outcomes."""
    chance, counts = random.Random(kind), Counter[str]()
    keep = copy_of(whole_case, tmp_path / "keep")
    chosen = {table: KINDS[kind](keep, table) for table in TABLES}
    case = copy_of(keep, tmp_path / "base")
    whole = {name: read(case.root) for name, read in READERS.items()}
    orders = [chance.sample(TABLES, len(TABLES)) for _ in range(rounds)]
    for of_round in (order[start : start + TOGETHER] for order in orders for start in range(0, len(order), TOGETHER)):
        flipped = []
        for table in of_round:
            file = Path(str(chance.choice(chosen[table])).replace(str(keep.base), str(case.base)))
            before = file.read_bytes()
            at, bit = chance.randrange(len(before)), chance.randrange(8)
            flip(file, at, bit)
            counts["flips"] += 1
            what = f"{table}: bit {bit} of byte {at} of {file.name}: {before[max(0, at - 40) : at + 40]!r}"
            for name, read in READERS.items():
                counts[read_outcome(case, read, whole[name])] += 1
            flipped.append((table, file, at, bit, what))
            file.write_bytes(before)
        for _, file, at, bit, _ in flipped:
            flip(file, at, bit)
        named = {fault.table for fault in case.faults()}
        for table, *_, what in flipped:
            counts["named by verify" if table in named else "not named by verify"] += 1
            if table not in named:
                sys.stdout.write(f"not named: {what}\n")
                # No commit follows, and no release names the newest commit of these tables: of it, the digests cover
                # what is read. The same is true of a checkpoint of the newest commit. If the log of the releases is
                # damaged in the same round, so is the record of the others' newest commits, until it is repaired.
                assert kind in ("checkpoint", "pointer") or {"releases", "exports"} & {table, *of_round}
        lost = case.repair().still_damaged
        faults, differing = case.faults(), [table for table in case.differing() if table != "exports"]
        good = not faults and not differing and all("export" in line or "release" in line for line in lost)
        counts["repaired" if good else "not repaired"] += len(flipped)
        counts["repairs that list something lost"] += bool(lost)
        if not good:
            sys.stdout.write(f"not repaired: {[what for *_, what in flipped]} {lost} {faults} {differing}\n")
        shutil.rmtree(case.base)
        shutil.copytree(keep.base, case.base)
    sys.stdout.write(f"{kind}: {dict(sorted(counts.items()))}\n")
    assert counts["reads with other values"] == counts["not repaired"] == 0


def read_outcome(case: Case, read: Callable[[str], Arrays], whole: Arrays) -> str:
    try:
        found = read(case.root)
    except LakeError:
        return "reads that are an error"
    same = len(found) == len(whole) and all(map(np.array_equal, found, whole))
    return "reads with the right values" if same else "reads with other values"
