"""Verdicts are on the disk when they are recorded, in the order in which they were made, and whole."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import DamagedLakeError, LakeError
from pipeline.verdicts.journal import (
    Picture,
    Verdict,
    append,
    read_journal,
    read_verdicts,
    record,
    verdict_rows,
    withdraw,
)
from pipeline.verdicts.standing import conflicts, standing

A, B, C = (Picture(bytes([number]) * 16, bytes([number]) * 32) for number in (1, 2, 3))


def kept(place: Path) -> list[tuple[str, str | None]]:
    rows = standing(read_verdicts(str(place)))
    return rows.select("verdict", "label").rows()


def test_the_newest_of_a_picture_and_of_a_pair_counts(tmp_path: Path) -> None:
    place = str(tmp_path)
    record(place, [Verdict("drop", A), Verdict("same", A, B), Verdict("keep", B)])
    record(place, [Verdict("different", B, A), Verdict("label", A, label="7.0 ")])
    assert kept(tmp_path) == [("keep", None), ("different", None), ("label", "7")]
    pair = read_verdicts(place).filter(pl.col("verdict").is_in(["same", "different"]))
    assert pair["file_digest"].to_list() == [A.file_digest] * 2, "the smaller digest is first"


def test_what_is_taken_back_no_longer_counts_and_what_was_before_does(tmp_path: Path) -> None:
    place = str(tmp_path)
    first, second = record(place, [Verdict("keep", A), Verdict("drop", A)])
    withdraw(place, [second])
    assert kept(tmp_path) == [("keep", None)]
    (taken_back,) = withdraw(place, [first])
    assert kept(tmp_path) == []
    with pytest.raises(LakeError, match=f"no verdict {taken_back.hex()} to take back"):
        withdraw(place, [taken_back])
    with pytest.raises(LakeError, match="no verdict 00 to take back"):
        withdraw(place, [first, b"\0"])
    assert len(read_verdicts(place)) == 4


def test_people_disagree_if_what_they_said_last_differs(tmp_path: Path) -> None:
    place = str(tmp_path)
    record(place, [Verdict("same", A, B), Verdict("drop", C), Verdict("label", A, label="x")], "ann")
    record(place, [Verdict("same", B, A), Verdict("not_sure", C), Verdict("label", A, label="y")], "bob")
    found = conflicts(read_verdicts(place))
    assert found.select("who", "verdict", "label").rows() == [("ann", "label", "x"), ("bob", "label", "y")]
    record(place, [Verdict("label", A, label="y")], "ann")
    assert conflicts(read_verdicts(place)).is_empty()


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (Verdict("same", A), "'same' is no verdict about one picture; those are keep, drop, label, wrong_label"),
        (Verdict("drop", A, B), "'drop' is no verdict about a pair; those are same, different, not_sure"),
        (Verdict("withdrawn", A), "withdrawn needs the verdict_id that it takes back"),
        (Verdict("label", A), "needs the right label"),
        (Verdict("keep", A, label="x"), "'keep' has no label"),
        (Verdict("label", A, label=" "), "the right label is empty"),
        (Verdict("drop", A, note="\udcff"), "half of a surrogate pair"),
        (Verdict("same", A, B, score=float("inf")), "not a finite number"),
        (Verdict("same", A, A._replace(content_hash=b"x" * 16)), "they are the same picture"),
    ],
)
def test_impossible_verdicts_are_refused_together(tmp_path: Path, verdict: Verdict, message: str) -> None:
    with pytest.raises(LakeError, match=message):
        record(str(tmp_path), [Verdict("keep", B), verdict])
    assert read_verdicts(str(tmp_path)).is_empty()


def test_a_verdict_is_later_than_all_that_were_read(tmp_path: Path) -> None:
    """The clock of another machine may be ahead."""
    (row,) = verdict_rows([Verdict("same", A, B)], "ann")
    (early,) = append(str(tmp_path), [{**row, "created_at": datetime.now(UTC) + timedelta(hours=2)}])
    read_verdicts(str(tmp_path))
    (late,) = record(str(tmp_path), [Verdict("different", A, B)])
    assert read_verdicts(str(tmp_path))["verdict_id"].to_list() == [early, late]
    assert kept(tmp_path) == [("different", None)]


def test_a_damaged_entry_is_named_and_drafts_are_ignored(tmp_path: Path) -> None:
    record(str(tmp_path), [Verdict("keep", A)])
    ((file, _),) = read_journal(str(tmp_path))
    (tmp_path / ".verdicts" / f".{Path(file).name}.draft").write_bytes(b"{")
    assert len(read_verdicts(str(tmp_path))) == 1
    whole = Path(file).read_bytes()
    for damaged in (whole[:-1], whole[:-20], b"\n", whole.replace(b"keep", b"\xff"), whole.replace(b'"keep"', b"null")):
        Path(file).write_bytes(damaged)
        with pytest.raises(DamagedLakeError, match=f"{Path(file).name}: this entry of the journal"):
            read_verdicts(str(tmp_path))


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / ".verdicts").write_text("a file")
    with pytest.raises(LakeError, match="cannot be written"):
        record(str(tmp_path), [Verdict("keep", A)])
