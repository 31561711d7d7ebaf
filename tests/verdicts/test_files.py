"""Verdicts go to a file and come back: all of them once, in an order that suits git."""

from pathlib import Path
from shutil import copytree

import polars as pl
import pytest
from commands import Run

from pipeline.errors import LakeError
from pipeline.lake_handle import Lake
from pipeline.verdicts.files import export_verdicts, import_verdicts
from pipeline.verdicts.journal import Picture, Verdict, read_verdicts, record, withdraw

A, B = (Picture(bytes([number]) * 16, bytes([number]) * 32) for number in (1, 2))
HEADER = "verdict,file_digest,label\n"


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_file_has_every_verdict_and_is_imported_once(tmp_path: Path, form: str) -> None:
    left, right, file = str(tmp_path / "left"), str(tmp_path / "right"), tmp_path / f"verdicts.{form}"
    ids = record(left, [Verdict("same", A, B, rule="photo:0.5", score=0.75), Verdict("drop", A, note='a,"b\n')], "ann")
    withdraw(left, ids[1:], "bob")
    assert export_verdicts(left, file) == 3
    assert import_verdicts(right, file) == (3, 0)
    assert import_verdicts(right, file) == (0, 3)
    assert read_verdicts(right).equals(read_verdicts(left))


def test_a_file_written_by_hand_needs_a_verdict_and_a_digest(tmp_path: Path) -> None:
    file = tmp_path / "hand.csv"
    file.write_text(f"{HEADER}label,{'ab' * 32},7.0\ndrop,{'cd' * 32},\n")
    assert import_verdicts(str(tmp_path / "lake"), file, "ann") == (2, 0)
    assert import_verdicts(str(tmp_path / "lake"), file, "ann") == (0, 2)
    rows = read_verdicts(str(tmp_path / "lake"))
    assert sorted(rows.select("who", "verdict", "label").rows()) == [("ann", "drop", None), ("ann", "label", "7")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}drop,{'ab' * 32},\nkeep,,\n", "row 2 is no verdict: it names no picture"),
        (f"{HEADER}drop,xyz,\n", "a value cannot be read"),
        (f"{HEADER},{'ab' * 32},\n", "a value cannot be read"),
        (f"{HEADER}drop,abcd,\n", "row 1 is no verdict: file_digest has 2 bytes; it must have 32"),
        (f"verdict,file_digest,score\ndrop,{'ab' * 32},high\n", "a value cannot be read"),
        (f"verdict,file_digest,score\ndrop,{'ab' * 32},nan\n", "row 1 is no verdict: the score is not a finite number"),
        ("verdict,digest\ndrop,ab\n", "unknown column 'digest'. Columns: verdict_id"),
        ("file_digest\nab\n", "the column verdict is missing"),
        ("", "cannot be read as csv"),
    ],
)
def test_what_cannot_be_imported_is_named_and_nothing_is_imported(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "hand.csv"
    file.write_text(text)
    with pytest.raises(LakeError, match=message):
        import_verdicts(str(tmp_path / "lake"), file)
    assert read_verdicts(str(tmp_path / "lake")).is_empty()


def test_the_commands(small_lake: Lake, tmp_path: Path, run: Run) -> None:
    lake = str(tmp_path / "lake")
    copytree(small_lake.root, lake)
    assert "recorded" in run("verdicts", "add", lake, "drop", "A/copy0.png", "--who", "ann", "--note", "blurred").stdout
    assert run("verdicts", "add", lake, "same", "A/copy0.png", "A/copy1.png", "--who", "ann").exit_code == 0
    run("verdicts", "add", lake, "different", "A/copy1.png", "A/copy0.png", "--who", "bob")
    listed = run("verdicts", "list", lake).stdout
    assert "2 verdicts count, 1 earlier or taken back" in listed
    assert "ann: drop, A/00000.png of d/train (blurred)" in listed
    assert "3 verdicts since the last build" in listed
    assert "People disagree about:" in listed
    file = str(tmp_path / "verdicts.csv")
    assert run("verdicts", "export", lake, file).stdout == f"wrote 3 verdicts to {file}\n"
    assert run("verdicts", "import", lake, file).stdout == "imported 0 verdicts, 3 known before\n"
    first = pl.read_csv(file)["verdict_id"][0]
    assert run("verdicts", "withdraw", lake, first).stdout == "took back 1 verdict\n"
    assert "1 verdict counts, 3 earlier or taken back" in run("verdicts", "list", lake).stdout
    for words, message in (
        (("add", lake, "same", "A/copy0.png"), "'same' is no verdict about one picture"),
        (("export", lake, "verdicts.txt"), "verdicts are kept in .csv or .parquet files"),
        (("import", lake, "none.csv"), "none.csv: there is no such file"),
    ):
        with pytest.raises(LakeError, match=message):
            run("verdicts", *words)
    assert "VERDICT_ID must be 32 hexadecimal digits" in run("verdicts", "withdraw", lake, "zz").stderr


def test_why_names_verdicts_also_since_the_last_build(small_lake: Lake, tmp_path: Path, run: Run) -> None:
    lake = str(tmp_path / "lake")
    copytree(small_lake.root, lake)
    Lake(lake).decide("label", "A/copy1.png", label="B", who="ann")
    assert "verdict of ann at" in run("why", lake, "A/copy1.png").stdout
