"""A damaged or lost table of verdicts is restored from every file that can be read; what is lost is counted."""

import shutil
from pathlib import Path

import polars as pl
import pytest
from damaged_lakes import Case, flip

from pipeline.errors import DamagedLakeError
from pipeline.lake_handle import Lake
from pipeline.verdicts.journal import Picture, Verdict, record

PICTURE = Picture(b"\7" * 16, b"\7" * 32)


def digests(case: Case) -> list[bytes]:
    return Lake(case.root).scan("verdicts").collect()["verdict_id"].to_list()


def test_a_damaged_table_is_restored_from_its_copy(case: Case) -> None:
    before = digests(case)
    flip(case.file("verdicts"), 40)
    assert {fault.table for fault in case.faults()} == {"verdicts"}
    with pytest.raises(DamagedLakeError, match="verdicts"):
        Lake(case.root).verdicts()
    record(case.root, [Verdict("drop", PICTURE)])
    with pytest.raises(DamagedLakeError, match=r"verdicts.*--repair"):
        case.build()
    assert case.repair().still_damaged == ()
    assert set(before) < set(digests(case)), "and the verdict of the journal"
    assert len(digests(case)) == len(before) + 1
    assert case.faults() == []
    assert case.build().done == ()


def test_without_a_copy_older_files_are_read_and_what_is_lost_is_counted(case: Case) -> None:
    before = digests(case)
    record(case.root, [Verdict("drop", PICTURE), Verdict("keep", PICTURE)])
    case.build()
    flip(case.file("verdicts"), 40)
    (copy,) = Path(case.root, ".verdicts").iterdir()
    flip(copy, 40)
    assert [text for text in case.repair().still_damaged if "2 of 10 are lost" in text]
    assert digests(case) == before
    assert case.faults() == []


def test_a_table_without_its_log_is_made_again_from_its_files(case: Case) -> None:
    shutil.rmtree(f"{case.root}/verdicts/_delta_log")
    case.repair()
    assert case.differing() == []
    assert case.faults() == []


def test_a_lost_table_is_made_again_from_its_copy(case: Case) -> None:
    shutil.rmtree(f"{case.root}/verdicts")
    case.repair()
    assert case.differing() == []
    assert case.faults() == []


def test_a_table_and_copy_that_are_lost_are_named_and_the_build_goes_on(case: Case) -> None:
    shutil.rmtree(f"{case.root}/verdicts")
    shutil.rmtree(f"{case.root}/.verdicts")
    built = case.repair()
    assert "verdicts: the table is lost" in " ".join(built.still_damaged)
    assert digests(case) == []
    assert Lake(case.root).scan("splits").filter(pl.col("reason") == "verdict").collect().is_empty()
    assert case.faults() == []
