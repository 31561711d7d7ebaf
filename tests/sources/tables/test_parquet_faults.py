"""Parquet that is damaged, unclear or has holes: an error that says what to do, or a reject a row."""

import gzip
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making import handed_out, source_of, turned_away
from parquets import CLASSES, EXPECTED, NUMBERS, PNGS, notes, published, structs, written

from pipeline.errors import SourceError
from pipeline.shard import Deferred
from pipeline.sources import detect, read


@pytest.mark.parametrize(
    "told",
    [
        {b"huggingface": b"no json"},
        {b"huggingface": b"[]"},
        {b"huggingface": b'{"info": {"features": [1]}}'},
        {b"huggingface": b'{"info": {"features": {"label": 3}}}'},
        {b"huggingface": b"[" * 100_000},
        notes(label={"_type": "ClassLabel", "names": "abc"}),
    ],
)
def test_notes_that_make_no_sense_say_nothing(tmp_path: Path, told: dict[bytes, bytes]) -> None:
    table = pa.table({"image": PNGS, "label": NUMBERS}).replace_schema_metadata(told)
    pq.write_table(table, tmp_path / "x")
    assert [label for _, label, _ in handed_out(source_of(tmp_path / "x"))] == list(map(str, NUMBERS))


def test_a_number_without_a_name_is_an_error_and_minus_one_is_no_label(tmp_path: Path) -> None:
    told = notes(label={"_type": "ClassLabel", "names": ["a", "b"]})
    for numbers, expected in (([0, -1, 1, None], ["a", None, "b", None]), ([0, 1, 2, 0], None), ([-2, 0, 0, 0], None)):
        table = pa.table({"image": PNGS[:4], "label": numbers}).replace_schema_metadata(told)
        pq.write_table(table, tmp_path / "x")
        if expected:
            assert [label for _, label, _ in handed_out(source_of(tmp_path / "x"))] == expected
        else:
            with pytest.raises(
                SourceError, match=r"label -?2 in column 'label' .* has no name: the file names 2 classes"
            ):
                handed_out(source_of(tmp_path / "x"))


@pytest.mark.parametrize(
    ("columns", "options", "match"),
    [
        (
            {"a": PNGS, "b": PNGS},
            {},
            "several columns may be the images .*a .binary., b .binary.. Name one with images",
        ),
        ({"a": NUMBERS}, {}, "no column of binary values may be the images .* It has: a .int64."),
        (
            {"image": PNGS, "x": NUMBERS},
            {},
            'may be the labels, or none, .* Name one with labels = "..." .*labels = ""',
        ),
        ({"image": PNGS, "label": NUMBERS, "class": NUMBERS}, {}, "one of several columns may be the labels"),
        (
            {"image": PNGS, "label": NUMBERS},
            {"images": "label"},
            "column 'label' is not binary and cannot be the images",
        ),
        ({"image": PNGS, "label": NUMBERS}, {"images": "no"}, "no column 'no' in .*It has: image .binary., label"),
        ({"image": PNGS, "label": NUMBERS}, {"labels": "no"}, "no column 'no' in .*Name one with labels"),
        ({"image": PNGS, "label": PNGS}, {"images": "image", "labels": "label"}, "row 0 of column 'label' .*not UTF-8"),
        ({"image": PNGS, "label": [[0, 1]] * 12}, {"labels": "label"}, "column 'label' .*neither text nor numbers"),
        ({"image": PNGS}, {"images": "image", "labels": "image"}, "column 'image' .*neither text nor numbers"),
        ({"image": PNGS, "label": [0.5] * 12}, {}, "column 'label' .* are not whole numbers"),
        ({"image": PNGS, "label": NUMBERS, "labels": [[0]] * 12}, {}, "one of several columns may be the labels"),
        ({"image": PNGS, "y": NUMBERS, "digit": NUMBERS}, {}, "several columns may be the labels .'y', 'digit'."),
        ({"image": PNGS, "x": NUMBERS, "y": NUMBERS}, {}, "several columns may be the labels, or none, .'x', 'y'."),
        ({"image": PNGS[:0], "label": NUMBERS[:0]}, {"images": "image"}, "no column|not binary|holds no rows"),
        ({"image": pa.array(PNGS[:0], pa.binary())}, {}, "holds no rows"),
        ({"image": pa.nulls(3, pa.binary())}, {}, "column 'image' .* holds no images.*list the files in a CSV"),
        ({"image": structs([None] * 3)}, {}, "column 'image' .* holds no images.*list the files in a CSV"),
    ],
)
def test_what_is_not_clear_is_an_error_that_lists_the_columns(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], match: str
) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        handed_out(source_of(written(tmp_path / "x", columns), **options))
    assert "\n" not in str(caught.value)


UNUSABLE: list[tuple[Any, str]] = [
    ([["cat"]] * 12, "list<"),
    (pa.array([["cat"]] * 12, pa.large_list(pa.string())), "large_list<"),
    ([[0, 0, 1]] * 12, "list<"),
    (pa.array([[0, 1]] * 12, pa.list_(pa.int8(), 2)), "fixed_size_list<"),
    ([{"label": 3}] * 12, "struct<label: int64>"),
    ([{"names": ["cat"], "boxes": [[1, 2]]}] * 12, "struct<"),
    (pa.array([[("a", 1)]] * 12, pa.map_(pa.string(), pa.int64())), "map<string, int64"),
    (pa.array([0] * 12, pa.timestamp("s")), "timestamp"),
    (pa.array([0] * 12, pa.date32()), "date32"),
    (structs(PNGS), "struct<bytes: binary, path: string>"),
]


@pytest.mark.parametrize(("column", "kind"), UNUSABLE, ids=[kind for _, kind in UNUSABLE])
@pytest.mark.parametrize("name", ["label", "Class", "y"])
def test_a_column_called_like_a_label_that_is_none_is_an_error(
    tmp_path: Path, column: Any, kind: str, name: str
) -> None:
    file = written(tmp_path / "x", {"image": PNGS, name: column})
    match = f"column '{name}' .{kind}.* is neither text nor numbers and cannot be the labels .*Name one with labels = "
    asked: tuple[dict[str, Any], ...] = ({}, {"labels": name})
    for options in asked:
        with pytest.raises(SourceError, match=match) as caught:
            handed_out(source_of(file, **options))
        assert 'labels = "" for none' in str(caught.value)
    assert {label for _, label, _ in handed_out(source_of(file, labels=""))} == {None}


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("meta", [{"label": 3}] * 12),
        ("objects", [{"bbox": [[1.0, 2.0]], "category": [3]}] * 12),
        ("answers", [[{"text": "a", "class_id": 3}]] * 12),
        ("image_tags", [["cat"]] * 12),
        ("fine_label", [["cat"]] * 12),
        ("label_probs", [[0.5, 0.5]] * 12),
        ("species", [0.5] * 12),
        ("breed", [b"cat", None] * 6),
        ("kind", pa.array([b"cat\0"] * 12, pa.binary(4))),
        ("kind", pa.array([b"cat", b"dog"] * 6).dictionary_encode()),
        ("kind", [3.0, None, float("nan")] * 4),
        ("kind", [Decimal("3.0")] * 12),
    ],
)
def test_a_column_that_may_hold_labels_is_never_left_out_silently(tmp_path: Path, name: str, column: Any) -> None:
    file = written(tmp_path / "x", {"image": PNGS, name: column})
    with pytest.raises(SourceError, match=f"a column may be the labels, or none, .'{name}'. .* labels = .. for none"):
        handed_out(source_of(file))
    assert {label for _, label, _ in handed_out(source_of(file, labels=""))} == {None}
    labelled = written(tmp_path / "y", {"image": PNGS, name: column, "label": [CLASSES[n] for n in NUMBERS]})
    assert handed_out(source_of(labelled)) == EXPECTED


@pytest.mark.parametrize(
    ("column", "match"),
    [
        ([0.0] * 7 + [0.5] + [1.5] * 4, "column 'label' .* are not whole numbers: row 7 has 0.5. .*labels ="),
        ([0.0] * 11 + [float("inf")], "column 'label' .* are not whole numbers: row 11 has inf"),
        ([0.0] * 11 + [1e300], "are not whole numbers: row 11 has 1e"),
        (pa.array(np.array([0] * 9 + [0.5] * 3, np.float16)), "are not whole numbers: row 9 has 0.5"),
        ([Decimal("1.00")] * 10 + [Decimal("1.25")] * 2, "are not whole numbers: row 10 has 1.25"),
        (pa.array([0.5, 1.0] * 6).dictionary_encode(), "are not whole numbers: row 0 has 0.5"),
        ([b"a"] * 5 + [b"\xff\xfe"] * 7, "label in row 5 of column 'label' .* is not UTF-8 text. .*labels ="),
        (pa.array([b"a"] * 6 + [b"\xe9"] * 6).dictionary_encode(), "label in row 6 of column 'label' .* is not UTF-8"),
        (pa.array([b"\1\0\0\0", b"\0\0\0\0"] * 6, pa.binary(4)), "label in row 0 of column 'label' .* is not UTF-8"),
        (pa.array([b"abcd", b"\0\0\0\0"] * 6, pa.binary(4)), "label in row 1 of column 'label' .* is not UTF-8"),
    ],
)
@pytest.mark.parametrize("group", [4, 12])
def test_a_value_that_is_no_label_is_an_error_that_names_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: Any, match: str, group: int
) -> None:
    monkeypatch.setattr("pipeline.sources.tables.parquet.IMAGES_PER_SHARD", 4)
    file = written(tmp_path / "x", {"image": PNGS, "label": column}, row_group_size=group)
    with pytest.raises(SourceError, match=match) as caught:
        handed_out(source_of(file))
    assert "\n" not in str(caught.value)


def test_two_columns_of_one_name_are_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array(PNGS), pa.array(PNGS)], names=["image", "image"]), tmp_path / "x")
    with pytest.raises(SourceError, match="more than one column 'image'"):
        handed_out(source_of(tmp_path / "x"))
    pq.write_table(pa.table([pa.array(PNGS), *[pa.array(NUMBERS)] * 2], names=["image", "y", "y"]), tmp_path / "x")
    asked: tuple[dict[str, Any], ...] = ({}, {"labels": "y"})
    for options in asked:
        with pytest.raises(SourceError, match="'y', 'y'|more than one column 'y'"):
            handed_out(source_of(tmp_path / "x", **options))


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("group", [1, 3, 12])
def test_rows_without_an_image_are_rejects(tmp_path: Path, group: int, *, statistics: bool) -> None:
    holes: list[bytes | None] = [None if n in (0, 4, 5) else png for n, png in enumerate(PNGS)]
    paths = [None if n == 4 else f"{n}.png" for n in range(12)]
    lost = [(str(n), CLASSES[n % 3], "empty", 0) for n in (0, 4, 5)]
    images: dict[str, pa.Array] = {"struct": structs(holes, paths), "plain": pa.array(holes, pa.binary())}
    images["outer"] = pa.array([None if png is None else {"bytes": png} for png in holes])
    for name, column in images.items():
        columns = {"image": column, "label": [CLASSES[n] for n in NUMBERS]}
        file = written(tmp_path / name, columns, row_group_size=group, write_statistics=statistics)
        assert handed_out(source_of(file)) == [row for n, row in enumerate(EXPECTED) if n not in (0, 4, 5)]
        refused = turned_away(source_of(file))
        assert [(r.path, r.label, r.reason, r.file_size) for r in refused] == lost
        told = ["the row has no image"] * 3
        if name == "struct":
            told = [
                f"the row has no image, only the path {p}" if p else "the row has no image"
                for p in ("0.png", None, "5.png")
            ]
        assert [r.detail for r in refused] == told


def test_a_value_of_no_bytes_is_for_the_decoder_to_judge(tmp_path: Path) -> None:
    assert handed_out(source_of(written(tmp_path / "x", {"image": [b"", PNGS[0]]}))) == [
        ("0", None, b""),
        ("1", None, PNGS[0]),
    ]


def test_the_driver_reads_no_image_and_the_worker_finds_the_damage(tmp_path: Path) -> None:
    file = published(tmp_path / "x", use_dictionary=False, compression="none")
    data = file.read_bytes()
    at = data.index(PNGS[6][100:200])
    start = data.index(PNGS[0]) - 200
    # The page's header and lengths go: what is left is no column.
    file.write_bytes(data[:start] + b"\xff" * (at - start) + data[at:])
    (shard,) = read(source_of(file))
    assert shard.labels == tuple(CLASSES[n] for n in NUMBERS)
    assert isinstance(shard.contents, Deferred)
    with pytest.raises(SourceError, match="d/train .x.: .* cannot be read as Parquet") as caught:
        shard.contents.make()
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_found_where_the_file_has_checksums(tmp_path: Path) -> None:
    options = {"use_dictionary": False, "compression": "none", "write_page_checksum": True}
    file = published(tmp_path / "x", **options)
    data = bytearray(file.read_bytes())
    data[data.index(PNGS[6]) + 300] ^= 1
    file.write_bytes(data)
    with pytest.raises(SourceError, match="CRC checksum verification failed"):
        handed_out(source_of(file))


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    file = published(tmp_path / "x")
    (shard,) = read(source_of(file))
    assert isinstance(shard.contents, Deferred)
    for fewer in ({"image": structs(PNGS[:7])}, {"image": structs([*PNGS[:11], None])}, {"other": PNGS}):
        written(file, fewer)
        with pytest.raises(SourceError, match="d/train .x.: .* changed while it was read. Run the build again"):
            shard.contents.make()


def test_damage_is_an_error_or_harmless(tmp_path: Path) -> None:
    whole = published(tmp_path / "x").read_bytes()
    chance = random.Random(0)
    for cut in (5, 8, len(whole) // 2, len(whole) - 1):
        (tmp_path / "x").write_bytes(whole[:cut])
        with pytest.raises(SourceError, match="cannot be read as Parquet"):
            handed_out(source_of(tmp_path / "x"))
    for _ in range(300):
        data = bytearray(whole)
        data[len(data) - 1 - chance.randrange(1_500)] = chance.randrange(256)
        (tmp_path / "x").write_bytes(data)
        try:
            handed_out(source_of(tmp_path / "x", format="parquet"))
        except SourceError as error:
            assert "\n" not in str(error)  # noqa: PT017 - both ends are right


@pytest.mark.parametrize("make", [lambda file: file.write_bytes(b"PAR1"), lambda file: file.mkdir()])
def test_what_is_no_parquet_is_an_error(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "x")
    with pytest.raises(SourceError, match="cannot be read as Parquet"):
        handed_out(source_of(tmp_path / "x", format="parquet"))


def test_a_packed_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(published(tmp_path / "x").read_bytes()))
    assert detect(tmp_path / "x.gz") == "parquet"
    with pytest.raises(SourceError, match="unpack it"):
        handed_out(source_of(tmp_path / "x.gz"))
