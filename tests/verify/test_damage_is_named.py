"""Faults name the damaged file, row group, column and images; a damaged log does not crash verify."""

import random
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damaged_lakes import Case, cut, end_of, flip, renamed, values_of
from lakes import files

import schemas
from pipeline.verify import Fault, verify
from pipeline.verify.parquet_file import TableFile, read_row_groups

pytestmark = pytest.mark.slow


def test_damaged_images_are_named(case: Case) -> None:
    file = case.file("images", "split=train")
    paths = pl.read_parquet(file, columns=["path"], hive_partitioning=False)["path"].to_list()
    flip(file, end_of(file, "pixels"))
    (fault, *_) = case.faults()
    assert (fault.kind, fault.rows) in (("checksum", len(paths)), ("unreadable", len(paths)))
    assert list(fault.images) == paths[:5]
    assert "its bytes are not those that its commit recorded" in str(fault)
    assert f"{paths[4]} and {len(paths) - 5} more" in str(fault)


def test_wrong_values_with_a_right_checksum_are_named_by_image(case: Case) -> None:
    """Pixels that changed before they were written, and labels, of which only the index has a copy."""
    file = case.file("images", "split=train")
    rows = pl.read_parquet(file, hive_partitioning=False)
    pixels, labels = rows["pixels"].to_list(), rows["label"].to_list()
    pixels[3] = bytes([pixels[3][0] ^ 4]) + pixels[3][1:]
    damaged = {
        "pixels do not match": rows.with_columns(pl.Series("pixels", pixels, dtype=pl.Binary)),
        "labels are not those of the index": rows.with_columns(pl.Series("label", ["?", *labels[1:]])),
    }
    for (text, changed), at in zip(damaged.items(), (3, 0), strict=True):
        pq.write_table(changed.to_arrow().cast(schemas.TABLES["images"].file_schema), file)
        file = renamed(file)
        named = [fault for fault in case.faults() if text in fault.text]
        assert {(fault.rows, *fault.images) for fault in named} == {(1, rows["path"][at])}
    assert (case.repair().still_damaged, case.faults(), case.differing()) == ((), [], [])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_cut_file_is_named(case: Case, share: float) -> None:
    file = case.file("images", "split=test")
    cut(file, min(int(file.stat().st_size * share), file.stat().st_size - 1))
    (fault,) = case.faults()
    assert (fault.kind, fault.file) == ("unreadable", str(file))
    assert "its commit records" in str(fault)


@pytest.mark.parametrize("table", schemas.TABLES)
def test_a_flipped_bit_in_any_column_is_found(case: Case, table: str) -> None:
    file = case.file(table)
    part = next(part for part in files(case.root, table) if file.match(part.path))
    whole = file.read_bytes()
    for column in (field.name for field in schemas.TABLES[table].file_schema if not pa.types.is_nested(field.type)):
        flip(file, end_of(file, column))
        faults: list[Fault] = []
        assert list(read_row_groups(TableFile(case.root, table, part), faults)) == []
        assert [fault.file for fault in faults] == [str(file)], column
        assert "not those that its commit recorded" in faults[0].text
        file.write_bytes(whole)


@pytest.mark.parametrize("table", ["images", "splits", "scores"])
def test_a_flip_in_a_footer_is_found_or_changes_no_value(case: Case, table: str) -> None:
    file, chance = case.file(table), random.Random(table)
    part = next(part for part in files(case.root, table) if file.match(part.path))
    whole, before = file.read_bytes(), values_of(file)
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for _ in range(60):
        flip(file, chance.randrange(start, len(whole)), chance.randrange(8))
        faults: list[Fault] = []
        rows = list(read_row_groups(TableFile(case.root, table, part), faults))
        assert faults or (before is not None and before.equals(values_of(file)) and rows[0].equals(before))
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("table", "damage"),
    [
        *(("releases", "gone"), ("clusters", "cut"), ("images", "garbled")),
        *(pytest.param(*rare, marks=pytest.mark.stress) for rare in (("images", "gone"), ("releases", "cut"))),
    ],
)
def test_a_damaged_log_is_named_and_does_not_stop_a_repair(case: Case, table: str, damage: str) -> None:
    log = Path(case.root, table, "_delta_log", f"{1:020}.json")
    if damage == "gone":
        log.with_name(f"{2:020}.json").write_bytes(log.read_bytes())
        log.unlink()
    elif damage == "cut":
        cut(log, 300)
    else:
        flip(log, log.read_bytes().index(b'"add"') + 1)
    checks = verify(case.root)
    named = [fault for fault in checks[0].faults if fault.table == table and fault.file == str(log)]
    assert named
    assert "Put it back from a copy" in str(named[0])
    built = case.repair()
    # A commit of which Delta skips the damaged action stays: only older releases need it, and they may be lost.
    assert {fault.file for fault in case.faults()} <= {str(log)}
    assert all("lost" in line or str(log) in line for line in built.still_damaged)
    assert case.differing() == []
