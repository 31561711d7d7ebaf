"""Parquet: what is published and what people write, the same pictures as a folder, and shards of the right size."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making import as_folder, files_of, handed_out, recipe, source_of, turned_away
from parquets import CLASSES, EXPECTED, NUMBERS, PNGS, notes, published, structs, written

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake
from pipeline.shard import Deferred
from pipeline.sources import read, survey


@pytest.mark.parametrize("options", [{}, {"row_group_size": 5}, {"compression": "zstd", "use_dictionary": False}])
def test_a_published_file_is_read_with_the_names_of_its_classes(tmp_path: Path, options: dict[str, Any]) -> None:
    source = source_of(published(tmp_path / "train-00000-of-00001.parquet", **options))
    assert source.format == "parquet"
    assert handed_out(source) == EXPECTED
    assert turned_away(source) == []


@pytest.mark.parametrize(
    "images",
    [
        pa.array(PNGS, pa.binary()),
        pa.array(PNGS, pa.large_binary()),
        pa.array(PNGS, pa.binary_view()),
        pa.array([png.ljust(2_000, b"\0") for png in PNGS], pa.binary(2_000)),
        structs(PNGS),
        structs(PNGS).cast(pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])),
        pa.StructArray.from_arrays([pa.array(PNGS)], ["bytes"]),
    ],
    ids=lambda column: str(column.type),
)
@pytest.mark.parametrize(
    "labels",
    [
        pa.array([CLASSES[n] for n in NUMBERS]),
        pa.array([CLASSES[n] for n in NUMBERS], pa.large_string()),
        pa.array([CLASSES[n] for n in NUMBERS], pa.string_view()),
        pa.array([CLASSES[n] for n in NUMBERS]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_every_type_of_column_is_read(tmp_path: Path, images: pa.Array, labels: pa.Array) -> None:
    rows = handed_out(source_of(written(tmp_path / "x", {"img": images, "class": labels})))
    assert [(path, label, data.rstrip(b"\0")) for path, label, data in rows] == [
        (path, label, data.rstrip(b"\0")) for path, label, data in EXPECTED
    ]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array([7, None, -1], pa.int8()), ["7", None, "-1"]),
        (pa.array([7, None, 9], pa.uint64()), ["7", None, "9"]),
        (pa.array([7.0, None, 9.0]), ["7", None, "9"]),
        (pa.array([True, None, False]), ["true", None, "false"]),
        (pa.array(["a", "", " b"]), ["a", None, "b"]),
        (pa.array([" ", "\t", "c"]), [None, None, "c"]),
        (pa.nulls(3), [None, None, None]),
        (pa.array([b"a", None, "ü 1".encode()]), ["a", None, "ü 1"]),
        (pa.array([b"a", b"", b"b"], pa.large_binary()), ["a", None, "b"]),
        (pa.array([b"a", None, b"b"], pa.binary_view()), ["a", None, "b"]),
        (pa.array([b"cat\0", None, b"emus"], pa.binary(4)), ["cat", None, "emus"]),
        (pa.array([7.0, float("nan"), None], pa.float32()), ["7", None, None]),
        (pa.array(np.array([7, np.nan, -1], np.float16)), ["7", None, "-1"]),
        (pa.array([Decimal("7.00"), None, Decimal("-9.00")]), ["7", None, "-9"]),
        (pa.array([Decimal(7), None, Decimal(9)], pa.decimal256(50, 0)), ["7", None, "9"]),
        (pa.array([b"b", None, b"a"]).dictionary_encode(), ["b", None, "a"]),
        (pa.array([7, None, 9], pa.int16()).dictionary_encode(), ["7", None, "9"]),
        (pa.array([7.0, None, 9.0]).dictionary_encode(), ["7", None, "9"]),
        (pa.array(["7", "07", "7.0"]), ["7", "07", "7"]),
    ],
)
def test_labels_are_words_or_numbers(tmp_path: Path, labels: pa.Array, expected: list[str | None]) -> None:
    for name in ("label", "Target", "y", "class_name"):
        source = source_of(written(tmp_path / "x", {"image": PNGS[:3], name: labels}))
        assert [label for _, label, _ in handed_out(source)] == expected


@pytest.mark.parametrize(
    "numbers",
    [
        pa.array(NUMBERS, pa.int32()),
        pa.array(NUMBERS, pa.float64()),
        pa.array(list(map(Decimal, NUMBERS)), pa.decimal128(5, 2)),
        pa.array(NUMBERS).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_names_of_classes_go_with_numbers_of_every_type(tmp_path: Path, numbers: pa.Array) -> None:
    table = pa.table({"image": PNGS, "label": numbers})
    told = notes(label={"_type": "ClassLabel", "names": CLASSES})
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **told}), tmp_path / "x")
    assert handed_out(source_of(tmp_path / "x")) == EXPECTED


def test_a_usual_name_that_says_label_comes_before_one_that_may_mean_anything(tmp_path: Path) -> None:
    words = [CLASSES[n] for n in NUMBERS]
    assert handed_out(source_of(written(tmp_path / "x", {"image": PNGS, "y": NUMBERS, "label": words}))) == EXPECTED
    assert handed_out(source_of(written(tmp_path / "x", {"x": PNGS, "y": words}))) == EXPECTED
    # Of two columns of bytes, one called like a label is not the image.
    coded = [word.encode() for word in words]
    assert handed_out(source_of(written(tmp_path / "x", {"png": PNGS, "class": coded}))) == EXPECTED


def test_the_index_of_a_pandas_table_is_no_label(tmp_path: Path) -> None:
    file = written(tmp_path / "x", {"image": PNGS, "__index_level_0__": list(range(12))})
    assert {label for _, label, _ in handed_out(source_of(file))} == {None}


@pytest.mark.parametrize(
    "column",
    [
        PNGS[::-1],
        structs(PNGS[::-1]),
        [[0.5, 0.25]] * 12,
        pa.array([[0.5, 0.25]] * 12, pa.list_(pa.float32(), 2)),
        [0.5] * 12,
        [None, float("nan"), 0.25] * 4,
        [Decimal("0.5")] * 12,
        [{"width": 28, "height": 28}] * 12,
        pa.array([0] * 12, pa.timestamp("s")),
    ],
    ids=lambda column: str(pa.array(column).type),
)
def test_columns_that_cannot_be_labels_are_left_out(tmp_path: Path, column: Any) -> None:
    file = written(tmp_path / "x", {"image": PNGS, "other": column})
    assert {label for _, label, _ in handed_out(source_of(file))} == {None}
    labelled = written(tmp_path / "y", {"image": PNGS, "other": column, "label": [CLASSES[n] for n in NUMBERS]})
    assert handed_out(source_of(labelled)) == EXPECTED


def test_a_file_written_by_polars_is_read(tmp_path: Path) -> None:
    pl.DataFrame({"png": PNGS, "category": [CLASSES[n] for n in NUMBERS]}).write_parquet(tmp_path / "x")
    assert handed_out(source_of(tmp_path / "x")) == EXPECTED


def test_the_recipe_names_the_columns(tmp_path: Path) -> None:
    columns = {"front": PNGS, "back": PNGS[::-1], "kind": [CLASSES[n] for n in NUMBERS], "n": NUMBERS}
    file = written(tmp_path / "x", columns)
    assert handed_out(source_of(file, images="front", labels="kind")) == EXPECTED
    assert [data for *_, data in handed_out(source_of(file, images="back", labels=""))] == PNGS[::-1]
    assert {label for _, label, _ in handed_out(source_of(file, images="back", labels=""))} == {None}


def test_options_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    file = written(tmp_path / "x", {"a": PNGS, "b": PNGS, "label": NUMBERS})
    prints = {survey(source_of(file, images=i, labels=j)).fingerprint for i in "ab" for j in ("", "label")}
    assert len(prints) == 4


def test_notes_tell_which_column_is_meant(tmp_path: Path) -> None:
    table = pa.table({"mask": structs(PNGS[::-1]), "photo": structs(PNGS), "a": NUMBERS, "label": ["x"] * 12})
    told = notes(photo={"_type": "Image"}, a={"_type": "ClassLabel", "names": CLASSES}, label={"_type": "Value"})
    pq.write_table(table.replace_schema_metadata(told), tmp_path / "x")
    assert handed_out(source_of(tmp_path / "x")) == EXPECTED


def shards(file: Path) -> list[list[int]]:
    return [list(map(int, shard.paths)) for shard in read(source_of(file))]


@pytest.mark.parametrize(
    ("group", "count", "sizes"),
    [
        (1, 5, [5, 5, 2]),
        (2, 5, [4, 4, 4]),
        (5, 5, [5, 5, 2]),
        (12, 5, [4, 4, 4]),
        (7, 5, [4, 3, 5]),
        (12, 12, [12]),
        (3, 100, [12]),
    ],
)
def test_row_groups_are_merged_and_cut_to_the_size_of_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int, count: int, sizes: list[int]
) -> None:
    monkeypatch.setattr("pipeline.sources.tables.parquet.IMAGES_PER_SHARD", count)
    file = written(tmp_path / "x", {"image": PNGS, "label": [CLASSES[n] for n in NUMBERS]}, row_group_size=group)
    assert [len(rows) for rows in shards(file)] == sizes
    assert handed_out(source_of(file)) == EXPECTED
    monkeypatch.setattr("pipeline.sources.tables.parquet._BATCH", 2)
    assert handed_out(source_of(file)) == EXPECTED


@pytest.mark.parametrize(("group", "sizes"), [(12, [2] * 6), (1, [2] * 6), (3, [2, 1] * 4)])
def test_shards_are_cut_by_bytes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int, sizes: list[int]
) -> None:
    monkeypatch.setattr("pipeline.sources.tables.parquet.BYTES_PER_SHARD", 2_000)
    file = written(tmp_path / "x", {"image": PNGS}, row_group_size=group, write_statistics=False, use_dictionary=False)
    assert {len(png) for png in PNGS} <= set(range(800, 900))
    assert [len(rows) for rows in shards(file)] == sizes


def test_only_wanted_shards_are_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.tables.parquet.IMAGES_PER_SHARD", 4)
    source = source_of(published(tmp_path / "x"))
    every = list(read(source))
    assert {shard.fingerprint for shard in every} == {survey(source).fingerprint}
    assert [shard.done for shard in every] == [pytest.approx(third / 3) for third in (1, 2, 3)]
    (one,) = read(source, {every[1].shard})
    assert one.paths == ("4", "5", "6", "7")


def test_memory_does_not_grow_with_the_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.tables.parquet.BYTES_PER_SHARD", 2**20)
    noise = np.random.default_rng(0).integers(0, 256, (64, 2**20), dtype=np.uint8)
    file = written(tmp_path / "x", {"image": [row.tobytes() for row in noise]}, row_group_size=64, write_batch_size=1)
    *_, last = read(source_of(file))
    assert isinstance(last.contents, Deferred)
    pool = pa.system_memory_pool()
    before, default = pool.max_memory(), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        last.contents.make()
    finally:
        pa.set_memory_pool(default)
    assert pool.max_memory() - before < 2**24


def test_the_survey_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(published(tmp_path / "x"))
    with monkeypatch.context() as held:
        held.setattr(pq, "ParquetFile", None)
        held.setattr("io.open", None)
        first = survey(source)
    published(tmp_path / "x", row_group_size=2)
    assert survey(source) != first


@pytest.mark.slow
def test_a_build_makes_the_same_images_as_of_a_folder(tmp_path: Path) -> None:
    files = files_of(40, "ABC")
    labels = [path.split("/")[0] for path in files]
    images = [*files.values(), b"no image", None]
    as_folder(tmp_path / "folder", {**files, "A/zz.png": b"no image"})
    written(tmp_path / "x", {"image": structs(images), "label": [*labels, "A", "B"]}, row_group_size=7)
    part = [{"uri": "x"}, {"uri": "folder", "split": "test"}]
    asked = recipe(tmp_path, *part, decode={"size": [28, 28]})
    made = build(asked, engine=LocalEngine(2))
    assert (made.images, made.rejects) == (80, 3)
    rows = Lake(made.root).scan("images").select("split", "label", "content_hash").collect()
    of = {split: sorted(rows.filter(split=split).drop("split").rows()) for split in ("train", "test")}
    assert of["train"] == of["test"]
    rejects = Lake(made.root).scan("rejects").filter(split="train").select("path", "label", "reason").collect()
    assert sorted(rejects.rows()) == [("40", "A", "not_an_image"), ("41", "B", "empty")]
    assert build(asked, engine=LocalEngine(1)).done == ()
