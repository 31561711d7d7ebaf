"""Reads of a damaged or incomplete lake: the right values or an error, never others, never an empty table."""

import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from damaged_lakes import Case, flip, renamed, tables_of

import schemas
from pipeline.builder.publish import write_report
from pipeline.engines.local import LocalEngine
from pipeline.errors import DamagedLakeError, LakeError, NoReleaseError, SourceError
from pipeline.export import export
from pipeline.lake_handle import Lake
from pipeline.storage.digests import check_file, recorded_digest

pytestmark = pytest.mark.slow

# The files that all readers below read.
READ = {"images": ("split=train",), "splits": ("split_name=main",), "releases": ()}
# Bits of one file of each table that a test of flipped bits flips one by one.
ROUNDS = 2


def read_arrays(root: str, _: Path) -> list[np.ndarray[Any, Any]]:
    return [array for role in ("train", "test") for array in Lake(root).arrays("main", role)]


def read_feed(root: str, _: Path) -> list[np.ndarray[Any, Any]]:
    return [array for batch in Lake(root).batches("main", "train", batch_size=16) for array in batch]


def read_export(root: str, out: Path) -> list[np.ndarray[Any, Any]]:
    target = out / f"export{len(list(out.iterdir()))}"
    export(root, "main", target, "npz", engine=LocalEngine(1), pinned=False)
    with np.load(target / "main.npz") as values:
        return [values[name] for name in sorted(values.files)]


def tables(*kept: str, others: Iterable[str] = schemas.TABLES) -> list[Any]:
    """Tables; `make test` tries some of them, `make stress` the others too."""
    return [*kept, *(pytest.param(name, marks=pytest.mark.stress) for name in others if name not in kept)]


READERS: dict[str, Callable[[str, Path], list[np.ndarray[Any, Any]]]] = {
    "arrays": read_arrays,
    "feed": read_feed,
    "export": read_export,
}


@pytest.mark.parametrize("reader", READERS)
def test_a_flipped_bit_is_an_error_or_changes_nothing(case: Case, tmp_path: Path, reader: str) -> None:
    read, out = READERS[reader], tmp_path / "out"
    out.mkdir()
    whole, chance, errors = read(case.root, out), random.Random(reader), 0
    for _ in range(ROUNDS):
        for table in schemas.TABLES:
            file = case.file(table, *READ.get(table, ()))
            before = file.read_bytes()
            flip(file, chance.randrange(len(before)), chance.randrange(8))
            try:
                found = read(case.root, out)
            except LakeError:
                errors += 1
            else:
                assert table not in READ
                assert all(np.array_equal(left, right) for left, right in zip(whole, found, strict=True))
            file.write_bytes(before)
    assert errors >= ROUNDS * len(READ)


@pytest.mark.parametrize("name", tables("models", "releases"))
def test_a_flipped_bit_in_any_table_is_named_and_repaired(case: Case, name: str) -> None:
    file, chance = case.file(name), random.Random(name)
    flip(file, chance.randrange(file.stat().st_size), chance.randrange(8))
    assert [fault.file for fault in case.faults() if fault.file] == [str(file)]
    assert all("exports" in line for line in case.repair().still_damaged)
    assert case.faults() == []
    assert [table for table in case.differing() if table != "exports"] == []


def test_unchecked_reads_are_possible(case: Case) -> None:
    file = case.file("images", "split=train")
    rows = pl.read_parquet(file, hive_partitioning=False)
    rows.with_columns(pl.lit(bytes(784)).alias("pixels")).write_parquet(file)
    with pytest.raises(DamagedLakeError, match="not those that its commit recorded"):
        Lake(case.root).arrays("main", "train")
    assert not Lake(case.root).arrays("main", "train", check=False)[0].any()


def test_an_older_file_of_the_same_size_is_noticed(case: Case) -> None:
    file = case.file("splits", "split_name=main")
    rows = pl.read_parquet(file, hive_partitioning=False)
    changed = rows.with_columns(label_index=1 - pl.col("label_index"))
    changed.write_parquet(file, compression="uncompressed")
    size = file.stat().st_size
    current = renamed(file)
    rows.write_parquet(current, compression="uncompressed")
    assert current.stat().st_size == size
    with pytest.raises(DamagedLakeError, match=current.name):
        Lake(case.root).arrays("main", "train")
    assert str(current) in {fault.file for fault in case.faults()}


def test_a_file_without_a_digest_is_checked_by_its_pages(case: Case) -> None:
    file = case.file("images", "split=train")
    old = file.rename(file.with_name(f"{file.stem[:32]}.parquet"))
    assert recorded_digest(str(old)) is None
    check_file(str(old))
    flip(old, old.stat().st_size // 2)
    with pytest.raises(DamagedLakeError):
        check_file(str(old))


@pytest.mark.parametrize("name", ["images", "splits", "clusters", "releases"])
@pytest.mark.parametrize("damage", ["table", "file"])
def test_what_is_missing_is_an_error_in_every_read(case: Case, tmp_path: Path, name: str, damage: str) -> None:
    file = case.file(name, *READ.get(name, ()))
    if damage == "table":
        shutil.rmtree(Path(case.root, name))
    else:
        file.unlink()
    reads: list[Callable[[], object]] = [
        lambda: Lake(case.root).scan(name).collect(),
        lambda: Lake(case.root).sql(f"select * from {name}").fetchall(),
        lambda: write_report(Lake(case.root), tmp_path / "report.html"),
    ]
    if name != "clusters":
        reads += [lambda: read_arrays(case.root, tmp_path), lambda: read_export(case.root, tmp_path)]
    for read in reads:
        with pytest.raises(Exception, match=name if damage == "table" else file.name) as caught:
            read()
        assert not isinstance(caught.value, NoReleaseError)


@pytest.mark.parametrize("name", tables("images", "shards", "splits", "scores", "releases"))
def test_a_missing_table_stops_builds_and_is_made_again(case: Case, name: str) -> None:
    shutil.rmtree(Path(case.root, name))
    assert any(name in str(fault) for fault in case.faults())
    if name != "exports":
        with pytest.raises(DamagedLakeError, match=f"{name}: the table is missing"):
            case.build()
    case.repair()
    assert case.faults() == []
    assert [table for table in case.differing() if table != "exports"] == []
    newest = Lake(case.root).release
    for release in range(1, newest):
        with pytest.raises(NoReleaseError):
            Lake(case.root, release)


@pytest.mark.parametrize(
    "name", tables("images", "shards", "splits", others=["index", "rejects", "clusters", "scores"])
)
def test_a_table_whose_newest_commit_is_missing_is_made_again(case: Case, name: str) -> None:
    newest = max(Path(case.root, name, "_delta_log").glob("*.json"))
    newest.unlink()
    assert any(name in str(fault) for fault in case.faults())
    with pytest.raises(LakeError, match=f"{name}: the newest commit of its log is missing"):
        Lake(case.root).scan(name)
    with pytest.raises(DamagedLakeError, match=f"{name}: the newest commit of its log is missing"):
        case.build()
    case.repair()
    assert (case.faults(), case.differing()) == ([], [])


@pytest.mark.parametrize("name", tables("images", "pairs", others=["splits", "clusters", "models", "predictions"]))
def test_an_empty_newest_commit_is_no_empty_table(case: Case, name: str) -> None:
    max(Path(case.root, name, "_delta_log").glob("*.json")).write_bytes(b"")
    for read in (lambda: Lake(case.root).scan(name), lambda: Lake(case.root).sql(f"select * from {name}"), case.build):
        with pytest.raises(DamagedLakeError, match="empty or cut off"):
            read()
    assert any(name in str(fault) for fault in case.faults())
    case.repair()
    assert (case.faults(), case.differing()) == ([], [])


@pytest.mark.parametrize(
    "name", ["images", *(pytest.param(name, marks=pytest.mark.stress) for name in ("splits", "scores"))]
)
def test_a_log_that_cannot_be_read_does_not_block_other_repairs(case: Case, name: str) -> None:
    other = case.file("clusters")
    other.unlink()
    log = Path(case.root, name, "_delta_log", f"{0:020}.json")
    log.write_bytes(log.read_bytes()[:40])
    assert case.faults()
    case.repair()
    assert case.faults() == []
    assert case.differing() == []
    assert list(Path(case.root, name).glob("_delta_log.*/*.json")), "the lost log is kept"


def test_no_repair_without_sources_empties_a_table(case: Case) -> None:
    shutil.rmtree(Path(case.root, "rejects"))
    (case.base / "train.tar.gz").rename(case.base / "away")
    with pytest.raises(SourceError, match="Nothing was changed"):
        case.repair()
    (case.base / "away").rename(case.base / "train.tar.gz")
    case.repair()
    assert (case.faults(), case.differing()) == ([], [])


def test_folders_above_a_lake_are_no_partitions(case: Case, tmp_path: Path) -> None:
    place = tmp_path / "split=zzz" / "a=b" / "shard=1"
    place.mkdir(parents=True)
    root = str(shutil.copytree(case.root, place / "lake"))
    found = tables_of(root)
    assert all(rows.equals(found[name]) for name, rows in case.fresh.items())
    query = "select dataset, split, shard, count(*) from images group by all order by all"
    assert Lake(root).sql(query).fetchall() == Lake(case.root).sql(query).fetchall()
    assert all(map(np.array_equal, read_arrays(root, tmp_path), read_arrays(case.root, tmp_path)))
