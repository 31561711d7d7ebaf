"""Exact sums per class, samples of classes, and reading only the chosen images."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image
from polars.io.plugins import register_io_source

from pipeline.report.pictures import contact_sheet, picture, read_pictures
from pipeline.report.sources import choose_samples, mean_of, std_of, sum_classes
from schemas import TABLES

NOTHING = pl.Series("image_id", [], dtype=pl.Binary)


def images(count: int, *, channels: int = 1, shards: int = 4, seed: int = 0) -> pl.DataFrame:
    """Make images of random size, label and shard."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        height, width = (int(side) for side in rng.integers(1, 40, 2))
        rows.append(
            {
                "image_id": rng.bytes(16),
                "path": f"{number}.png",
                "label": [None, "a", "b"][rng.integers(3)],
                "height": height,
                "width": width,
                "channels": channels,
                "pixels": rng.integers(0, 256, height * width * channels, dtype=np.uint8).tobytes(),
                "content_hash": rng.bytes(16),
                "file_size": 1,
                "dataset": "toy",
                "split": "train",
                "shard": f"{rng.integers(shards)}",
            }
        )
    for row in rows:
        values = np.frombuffer(row["pixels"], np.uint8).astype(np.int64)
        row.update(pixel_sum=int(values.sum()), pixel_squares=int((values**2).sum()))
    return pl.DataFrame(pa.Table.from_pylist(rows, schema=TABLES["images"].schema))


def scaled(pixels: pl.Series) -> Any:
    return (np.frombuffer(b"".join(pixels), dtype=np.uint8).astype(np.float64) - 127.5) / 255


def opened(shown: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(shown["src"].removeprefix("data:image/png;base64,"))))


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_std_are_those_of_all_pixels(channels: int) -> None:
    frame = images(60, channels=channels)
    sums = sum_classes(frame.lazy())
    assert sums["label"].to_list() == ["a", "b", None]
    for row in sums.iter_rows(named=True):
        values = scaled(frame.filter(pl.col("label").eq_missing(row["label"]))["pixels"])
        assert mean_of(row) == pytest.approx(values.mean(), abs=1e-12)
        assert std_of(row) == pytest.approx(values.std(), abs=1e-12)


def test_sums_are_the_same_whatever_the_shards() -> None:
    frame = images(60)
    one = frame.with_columns(shard=pl.lit("0")).sample(fraction=1, shuffle=True, seed=1)
    assert sum_classes(frame.lazy()).equals(sum_classes(one.lazy()))


def test_a_constant_picture_has_no_deviation() -> None:
    sums = {"values": 784, "total": 784 * 255, "squares": 784 * 255 * 255}
    assert (mean_of(sums), std_of(sums)) == (0.5, 0.0)
    assert std_of(dict.fromkeys(sums, 0)) is None


def test_the_filter_on_images_is_pushed_down_into_the_reader() -> None:
    frame = images(60)
    reads: list[pl.DataFrame] = []

    def source(
        columns: list[str] | None, predicate: pl.Expr | None, _: int | None, __: int | None
    ) -> Iterator[pl.DataFrame]:
        part = frame if predicate is None else frame.filter(predicate)
        read = part.select(columns or frame.columns)
        reads.append(read)
        yield read

    scanned = register_io_source(source, schema=frame.schema)
    sum_classes(scanned)
    read_pictures(scanned, NOTHING)
    assert [part for part in reads if "pixels" in part.columns and part.height] == []
    read_pictures(scanned, frame.filter(pl.col("shard").is_in(["1", "3"]))["image_id"])
    wanted = frame.filter(pl.col("shard").is_in(["1", "3"])).height
    assert [part.height for part in reads if "pixels" in part.columns and part.height] == [wanted]


def test_wanted_images_are_returned_complete() -> None:
    frame = images(60)
    wanted = frame["image_id"].sample(9, seed=2)
    kept = read_pictures(frame.lazy(), wanted)
    expected = frame.filter(pl.col("image_id").is_in(wanted.to_list()))
    assert dict(kept.select("image_id", "pixels").rows()) == dict(expected.select("image_id", "pixels").rows())


def test_samples_come_from_one_shard_that_has_enough() -> None:
    frame = images(200)
    chosen = choose_samples(frame.lazy(), per_class=5)
    assert chosen.group_by("label").len()["len"].to_list() == [5, 5, 5]
    assert chosen.join(frame.select("image_id", "shard"), on="image_id")["shard"].unique().to_list() == ["0"]
    first = frame.filter(pl.col("shard") == "0", pl.col("label") == "a")["image_id"].sort().head(5)
    assert chosen.filter(pl.col("label") == "a")["image_id"].to_list() == first.to_list()


def test_samples_come_from_several_shards_where_none_has_enough() -> None:
    frame = images(40, shards=20)
    chosen = choose_samples(frame.lazy(), per_class=6)
    assert chosen.group_by("label").len()["len"].to_list() == [6, 6, 6]


def test_samples_do_not_depend_on_the_order_of_rows() -> None:
    frame = images(200)
    shuffled = frame.sample(fraction=1, shuffle=True, seed=3)
    assert choose_samples(frame.lazy()).equals(choose_samples(shuffled.lazy()))


def test_only_the_first_classes_are_pictured() -> None:
    frame = images(60).with_columns(label=pl.format("{}", pl.int_range(pl.len()) % 20 + 10))
    assert choose_samples(frame.lazy(), classes=3)["label"].unique().sort().to_list() == ["10", "11", "12"]


def row_of(height: int, width: int, channels: int) -> dict[str, Any]:
    pixels = np.random.default_rng(0).integers(0, 256, height * width * channels, dtype=np.uint8).tobytes()
    return {"height": height, "width": width, "channels": channels, "pixels": pixels}


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_small_picture_keeps_every_pixel(channels: int, mode: str) -> None:
    row = row_of(28, 20, channels)
    shown = picture(row)
    assert opened(shown).mode == mode
    assert opened(shown).tobytes() == row["pixels"]
    assert (shown["scale"], shown["show_width"], shown["show_height"]) == (2, 40, 56)


def test_a_large_picture_is_scaled_down_in_proportion() -> None:
    shown = picture(row_of(300, 150, 3))
    assert opened(shown).size == (48, 96)
    assert (shown["scale"], shown["height"], shown["width"]) == (1, 300, 150)


def test_a_contact_sheet_holds_pictures_of_any_size() -> None:
    sheet = contact_sheet([row_of(28, 20, 1), row_of(10, 28, 3), row_of(200, 100, 3)])
    assert sheet["count"] == 3
    assert opened(sheet).size == (3 * 32 + 2 * 2, 64)
    assert opened(sheet).mode == "RGBA"
    assert opened(contact_sheet([row_of(28, 28, 1)] * 2)).mode == "LA"
