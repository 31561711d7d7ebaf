"""Parquet that is damaged, unclear or has holes: an error that says what to do, or a reject a row."""

import gzip
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making import handed_out, source_of, turned_away
from parquets import CLASSES, EXPECTED, NUMBERS, PNGS, notes, published, structs, written

from pipeline.encoded import Made
from pipeline.errors import SourceError
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
        ({"image": PNGS, "label": PNGS}, {"images": "image", "labels": "label"}, "neither text nor numbers"),
        ({"image": PNGS, "label": [0.5] * 12}, {}, "column 'label' .* are no whole numbers"),
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


def test_two_columns_of_one_name_are_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array(PNGS), pa.array(PNGS)], names=["image", "image"]), tmp_path / "x")
    with pytest.raises(SourceError, match="more than one column 'image'"):
        handed_out(source_of(tmp_path / "x"))


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
    assert isinstance(shard.contents, Made)
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
    assert isinstance(shard.contents, Made)
    for fewer in ({"image": structs(PNGS[:7])}, {"image": structs([*PNGS[:11], None])}, {"other": PNGS}):
        written(file, fewer)
        with pytest.raises(SourceError, match="d/train .x.: .* changed while it was read. Build again"):
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
