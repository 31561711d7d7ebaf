"""CSV of pixels: the digit-recognizer form and what people make of it."""

import bz2
import csv
import gzip
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import handed_out, pictures, source_of, turned_away

from pipeline.errors import SourceError
from pipeline.sources import read, survey
from pipeline.sources.tables.csv import _make_shard
from pipeline.sources.tables.csv_columns import Layout

HEADER = "label,pixel0,pixel1,pixel2,pixel3"
SQUARE = (HEADER, "7,0,1,2,3", "5,255,254,253,252")


def written(folder: Path, *lines: str, end: str = "\n", name: str = "a.csv") -> Path:
    (folder / name).write_bytes("".join(line + end for line in lines).encode())
    return folder / name


def rows(file: Path, **options: Any) -> list[tuple[str, str | None, list[int]]]:
    return [(path, label, pixels.ravel().tolist()) for path, label, pixels in handed_out(source_of(file, **options))]


BOTH = [("0", "7", [0, 1, 2, 3]), ("1", "5", [255, 254, 253, 252])]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "lines",
    [
        SQUARE,
        ('"label","pixel0","pixel1","pixel2","pixel3"', '"7","0","1","2","3"', '"5","255","254","253","252"'),
        ("\ufeff" + HEADER, *SQUARE[1:]),
        ("# " + HEADER, *SQUARE[1:]),
        (HEADER.upper(), *SQUARE[1:]),
        ("pixel0,pixel1,pixel2,pixel3,label", "0,1,2,3,7", "255,254,253,252,5"),
        (HEADER, " 7, 0,1 ,2,03", "5,255,254,253,252"),
        (*SQUARE, "", ""),
        ("", *SQUARE),
        (HEADER + ",", "7,0,1,2,3,", "5,255,254,253,252,"),
        (HEADER, "7,0.0,1.0,2.,3.00", "5,255.0,2.54e+02,253,252"),
        *(tuple(line.replace(",", separator) for line in SQUARE) for separator in (";", "\t", "|")),
        (*SQUARE, "  "),
    ],
)
def test_one_pair_of_rows_in_many_spellings(tmp_path: Path, lines: tuple[str, ...], end: str) -> None:
    file = written(tmp_path, *lines, end=end)
    assert rows(file) == BOTH
    assert turned_away(source_of(file)) == []


def test_the_last_line_needs_no_end(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n".join(SQUARE))
    assert rows(tmp_path / "a.csv") == BOTH


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_file_is_read_as_it_is(tmp_path: Path, pack: Any) -> None:
    (tmp_path / "a.bin").write_bytes(pack(written(tmp_path, *SQUARE).read_bytes()))
    assert rows(tmp_path / "a.bin") == BOTH


def test_without_a_label_column_labels_are_null(tmp_path: Path) -> None:
    unlabelled = [(path, None, pixels) for path, _, pixels in BOTH]
    header = written(tmp_path, "pixel0,pixel1,pixel2,pixel3", "0,1,2,3", "255,254,253,252")
    assert rows(header) == unlabelled
    assert rows(written(tmp_path, "0,3,2,1", "255,254,253,252"), decode={"size": [2, 2]}) == [
        ("0", None, [0, 3, 2, 1]),
        unlabelled[1],
    ]


def test_labels_are_words_and_an_empty_one_is_null(tmp_path: Path) -> None:
    lines = ("cat,0,1,2,3", '"a dog",0,1,2,3', ",0,1,2,3", "007,0,1,2,3", "nan,0,1,2,3", "5.00e+00,0,1,2,3")
    for header in (HEADER, '"digit","pixel0","pixel1","pixel2","pixel3"'):
        file = written(tmp_path, header, *lines)
        assert [label for _, label, _ in rows(file)] == ["cat", "a dog", None, "007", None, "5"]


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("7,0,1,2", "4 values where the file has 5 columns"),
        ("7,0,1,2,3,4", "6 values where the file has 5 columns"),
        ("7,0,256,2,3", "column 2 holds '256', no whole number from 0 to 255"),
        ("7,0,1,-1,3", "column 3 holds '-1', no whole number from 0 to 255"),
        ("7,1.5,1,2,3", "column 1 holds '1.5', no whole number from 0 to 255"),
        ("7,0,1,2,x", "column 4 holds 'x', no whole number from 0 to 255"),
        ("7,0,,2,3", "column 2 holds '', no whole number from 0 to 255"),
        ("7,0,1e1,2,3", "column 2 holds '1e1', no whole number from 0 to 255"),
        ("7,0,0x1,2,3", "column 2 holds '0x1', no whole number from 0 to 255"),
        ("7,0,99999999999999999999999,2,3", "column 2 holds '99999999999999999999', no whole number from 0 to 255"),
        ("7,0,\0,2,3", "column 2 holds '\\x00', no whole number from 0 to 255"),
        ('"7,0,1,2,3', ""),
    ],
)
def test_a_bad_row_is_a_reject_and_the_others_stay(tmp_path: Path, line: str, detail: str) -> None:
    file = written(tmp_path, *SQUARE[:2], line, *SQUARE[2:])
    if not detail:  # an open quote is an odd label, and no end of the file
        assert [path for path, _, _ in rows(file)] == ["0", "1", "2"]
        return
    assert [path for path, _, _ in rows(file)] == ["0", "2"]
    (refused,) = turned_away(source_of(file))
    assert refused == ("1", None, "bad_row", detail, len(line) + 1)


def test_blank_lines_are_no_rows_but_keep_their_number(tmp_path: Path) -> None:
    file = written(tmp_path, *SQUARE[:2], "", "7,1,1,1,x", SQUARE[2])
    assert [path for path, _, _ in rows(file)] == ["0", "3"]
    assert [refused.path for refused in turned_away(source_of(file))] == ["2"]


@pytest.mark.parametrize("lines", [(HEADER,), (HEADER, "", "")])
def test_a_file_without_rows_is_an_error(tmp_path: Path, lines: tuple[str, ...]) -> None:
    with pytest.raises(SourceError, match="holds no rows"):
        rows(written(tmp_path, *lines))


def test_shards_are_cut_by_count_and_number_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.tables.csv.IMAGES_PER_SHARD", 2)
    bare = ",".join(["1"] * 64)
    for lines in ((bare,) * 5, (",".join(f"p{n}" for n in range(64)), *(bare,) * 5)):
        source = source_of(written(tmp_path, *lines))
        shards = list(read(source))
        assert [shard.paths for shard in shards] == [("0", "1"), ("2", "3"), ("4",)]
        assert {shard.fingerprint for shard in shards} == {survey(source).fingerprint}
        assert [shard.paths for shard in read(source, {shards[1].shard})] == [("2", "3")]


@pytest.mark.parametrize("keep", [12, 40, -1])
def test_a_cut_gzip_is_an_error(tmp_path: Path, keep: int) -> None:
    text = "\n".join(",".join(map(str, row)) for row in pictures(20, size=(1, 64)).reshape(20, 64))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode())[:keep])
    with pytest.raises(SourceError, match="damaged or cut short"):
        rows(tmp_path / "a.csv.gz", format="csv")


@given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=20))
def test_every_line_is_a_picture_a_reject_or_blank(lines: list[bytes]) -> None:
    layout = Layout(4, ",", None, (0, 1, 2, 3), (2, 2, 1), header=False, is_certain=True)
    shard = _make_shard("k", "f", 0, [line + b"\n" for line in [b"1,2,3,4", *lines]], layout)
    assert len(shard) == 1 + sum(bool(line.strip()) for line in lines)
    assert len({*shard.paths, *(refused.path for refused in shard.rejects)}) == len(shard)


def test_pixels_come_back_as_they_were_written(tmp_path: Path) -> None:
    made = pictures(50, size=(9, 9))
    file = written(tmp_path, *(",".join(map(str, ("abc"[n % 3], *made[n].ravel()))) for n in range(50)))
    assert np.array_equal([pixels[..., 0] for *_, pixels in handed_out(source_of(file))], made)


def test_quoted_labels_are_read_as_they_were_written(tmp_path: Path) -> None:
    names = ["a,b", 'q"', "plain", " spaced ", "ü"]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["label", *(f"pixel{i}" for i in range(4))])
        writer.writerows([name, 1, 2, 3, 4] for name in names)
    assert [label for _, label, _ in handed_out(source_of(tmp_path / "a.csv"))] == ["a,b", 'q"', "plain", "spaced", "ü"]
    assert turned_away(source_of(tmp_path / "a.csv")) == []


def test_a_row_that_is_no_utf8_is_a_reject_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"label,px0,px1,px2,px3\nA,1,2,3,4\n\xe9,1,2,3,4\n\xfc,1,2,3,4\n")
    assert [label for _, label, _ in handed_out(source_of(tmp_path / "a.csv"))] == ["A"]
    refused = turned_away(source_of(tmp_path / "a.csv"))
    assert [(item.path, item.reason) for item in refused] == [("1", "bad_row"), ("2", "bad_row")]
    assert "no UTF-8" in refused[0].detail


def test_other_columns_may_hold_anything(tmp_path: Path) -> None:
    lines = ("id,pixel0,pixel1,pixel2,pixel3,class", "a b,0,1,2,3,7", '"x,y",255,254,253,252,5', ",1,1,1,1,1")
    file = written(tmp_path, *lines)
    assert rows(file) == [*BOTH, ("2", "1", [1, 1, 1, 1])]
    assert turned_away(source_of(file)) == []


def test_keys_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    file = written(tmp_path, *SQUARE)
    keys: list[dict[str, Any]] = [{}, {"labels": ""}, {"labels": "label"}, {"images": "pixel"}]
    assert len({survey(source_of(file, **key)).fingerprint for key in keys}) == 4


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("form", [None, "csv", "list"])
def test_utf_16_is_an_error_that_says_so(tmp_path: Path, encoding: str, form: str | None) -> None:
    (tmp_path / "a.csv").write_bytes("\n".join(SQUARE).encode(encoding))
    with pytest.raises(SourceError, match="a.csv is UTF-16 text.* Save it as UTF-8"):
        rows(tmp_path / "a.csv", format=form)
