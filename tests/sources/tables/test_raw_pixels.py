"""Parquet columns of pixels with their sizes are pictures; encoded images with their sizes stay encoded images."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import decoded, encoded, handed_out, pictures, source_of, turned_away

from pipeline.shard import Deferred, Pixels
from pipeline.sources import read

SHAPES = [(2, 3, 1), (3, 2, 1), (1, 4, 3), (2, 3, 1), (4, 4, 3)]
PICTURES = [np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8) for i, shape in enumerate(SHAPES)]
LABELS = ["a", None, "b", "a", "7"]


def columns_of(made: list[Any], labels: list[str | None]) -> dict[str, Any]:
    height, width, channels = (pa.array([picture.shape[axis] for picture in made], pa.int32()) for axis in range(3))
    pixels = pa.array([picture.tobytes() for picture in made], pa.binary())
    ids = pa.array([bytes([i]) for i in range(len(made))], pa.binary())
    text = pa.array(labels, pa.string())
    columns = {"image_id": ids, "label": text, "height": height, "width": width, "channels": channels}
    return {**columns, "pixels": pixels, "content_hash": ids}


def written(file: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), file, **options)
    return file


def seen(file: Path, mode: str = "RGB", **part: Any) -> list[tuple[str, str | None, Any]]:
    """Read a source and decode it: path, label, and shape and pixels or the reason why there are none."""
    rows: list[tuple[str, str | None, Any]] = []
    for shard in read(source_of(file, **part)):
        for path, label, item in zip(shard.paths, shard.labels, decoded(shard, mode=mode), strict=True):
            rows.append((path, label, item.tolist() if isinstance(item, np.ndarray) else item.reason))
    return rows


@pytest.mark.parametrize("group", [1, 2, 10])
@pytest.mark.parametrize("without", [(), ("channels",), ("image_id", "content_hash", "channels")])
def test_pictures_of_several_sizes_are_read(tmp_path: Path, without: tuple[str, ...], group: int) -> None:
    for channels, mode in ((1, "L"), (3, "RGB")):
        chosen = [i for i, shape in enumerate(SHAPES) if shape[2] == channels]
        made, labels = [PICTURES[i] for i in chosen], [LABELS[i] for i in chosen]
        columns = {name: column for name, column in columns_of(made, labels).items() if name not in without}
        file = written(tmp_path / "x", columns, row_group_size=group)
        expected = [
            (str(i), label, picture.tolist()) for i, (label, picture) in enumerate(zip(labels, made, strict=True))
        ]
        assert seen(file, mode) == expected


@settings(max_examples=40)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=6),
    channels=st.sampled_from([1, 3]),
    kind=st.sampled_from([pa.binary(), pa.large_binary(), pa.binary_view(), "fixed"]),
    number=st.sampled_from([pa.int16(), pa.uint8(), pa.uint64(), pa.int64()]),
    same=st.booleans(),
    named=st.booleans(),
)
def test_any_pixels_come_back(  # noqa: PLR0913 - what a table may be
    tmp_path_factory: pytest.TempPathFactory,
    shapes: list[tuple[int, int]],
    channels: int,
    kind: Any,
    number: Any,
    *,
    same: bool,
    named: bool,
) -> None:
    shapes = shapes[:1] * len(shapes) if same else shapes
    made = [np.random.default_rng(i).integers(0, 256, (*shape, channels), np.uint8) for i, shape in enumerate(shapes)]
    columns = columns_of(made, [None] * len(made))
    columns |= {name: columns[name].cast(number) for name in ("height", "width", "channels")}
    fixed = pa.binary(made[0].size) if len(set(shapes)) == 1 else pa.binary()
    columns["pixels"] = columns["pixels"].cast(fixed if kind == "fixed" else kind)
    columns["bytes" if named else "pixels"] = columns.pop("pixels")
    file = written(tmp_path_factory.getbasetemp() / "any.parquet", columns)
    found = seen(file, "L" if channels == 1 else "RGB", **({"images": "bytes"} if named else {}))
    assert [item for *_, item in found] == [picture.tolist() for picture in made]


def test_a_shard_of_one_shape_is_one_array(tmp_path: Path) -> None:
    same = list(pictures(3, size=(5, 4))[..., None])
    (shard,) = read(source_of(written(tmp_path / "x", columns_of(same, [None] * 3))))
    assert isinstance(shard.contents, Deferred)
    contents = shard.contents.make()
    assert isinstance(contents, Pixels)
    assert np.array_equal(contents.array, same)


def test_rows_that_are_no_picture_are_rejects(tmp_path: Path) -> None:
    made = list(pictures(9, size=(5, 4))[..., None])
    columns = columns_of(made, list("abcdefghi"))
    columns["height"] = pa.array([5, 0, 5, None, 5, 5, 5, 5, 5], pa.int32())
    columns["width"] = pa.array([4, 4, -4, 4, 4, 4, 4, 4, 4], pa.int32())
    columns["channels"] = pa.array([1, 1, 1, 1, 2, 1, 1, 1, 1], pa.int32())
    data = [picture.tobytes() for picture in made]
    data[5:7] = [data[5][:-1], data[6] + b"x"]
    for holes in (False, True):
        columns["pixels"] = pa.array([None if holes and i == 0 else value for i, value in enumerate(data)], pa.binary())
        file = written(tmp_path / f"{holes}", columns)
        assert seen(file, "L") == [
            *([] if holes else [("0", "a", made[0].tolist())]),
            ("5", "f", "truncated"),
            ("6", "g", "truncated"),
            ("7", "h", made[7].tolist()),
            ("8", "i", made[8].tolist()),
        ]
        refused = [(one.path, one.label, one.reason, one.detail) for one in turned_away(source_of(file))]
        assert refused == [
            *([("0", "a", "empty", "the row has no image")] if holes else []),
            ("1", "b", "corrupt", "no picture has these sizes: height 0, width 4, channels 1"),
            ("2", "c", "corrupt", "no picture has these sizes: height 5, width -4, channels 1"),
            ("3", "d", "corrupt", "no picture has these sizes: height None, width 4, channels 1"),
            ("4", "e", "corrupt", "no picture has these sizes: height 5, width 4, channels 2"),
        ]


def test_encoded_images_with_their_sizes_stay_encoded_images(tmp_path: Path) -> None:
    files = [encoded(picture[..., 0] if picture.shape[2] == 1 else picture) for picture in PICTURES]
    for name in ("pixels", "image", "data"):
        columns = columns_of(PICTURES, LABELS)
        del columns["pixels"], columns["image_id"], columns["content_hash"]
        file = written(tmp_path / name, {**columns, name: pa.array(files, pa.binary())})
        assert [data for *_, data in handed_out(source_of(file))] == files
    struct = pa.array([{"bytes": data, "path": None} for data in files])
    file = written(tmp_path / "struct", {**columns, "image": struct})
    assert [data for *_, data in handed_out(source_of(file))] == files


def test_ids_are_no_labels(tmp_path: Path) -> None:
    png = encoded(PICTURES[4])
    for name in ("image_id", "id", "__key__", "__index_level_0__"):
        file = written(tmp_path / name, {"image": [png, png], name: ["a", "b"]})
        assert handed_out(source_of(file)) == [("0", None, png), ("1", None, png)]
        assert [label for _, label, _ in handed_out(source_of(file, labels=name))] == ["a", "b"]
