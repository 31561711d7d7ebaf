from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from examples import few
from feeding import Pictures
from hypothesis import given
from hypothesis import strategies as st

from pipeline.arrays.epoch import epoch_order
from pipeline.errors import LakeError
from pipeline.pixels import find, gather, locate


def series(pictures: Pictures, chosen: list[int]) -> pl.Series:
    return pl.Series([pictures.image_ids[n].tobytes() for n in chosen], dtype=pl.Binary)


@few(30)
@given(st.lists(st.integers(0, 399), unique=True, max_size=60))
def test_any_images_are_found_and_read_in_the_order_asked_for(pictures: Pictures, chosen: list[int]) -> None:
    where = locate(pictures.files, series(pictures, chosen))
    assert len(where) == len(chosen)
    if chosen:
        np.testing.assert_array_equal(gather(where), pictures.pixels[chosen])
        lying = where.file_order()
        assert [chosen[at] for at in lying] == sorted(chosen)
        np.testing.assert_array_equal(gather(where.take(lying)), pictures.pixels[sorted(chosen)])


@few(40)
@given(st.data())
def test_ids_that_share_their_first_half_are_told_apart(data: st.DataObject) -> None:
    # Few different halves, so that most are shared.
    halves = st.tuples(st.integers(0, 2), st.integers(0, 2))
    every = data.draw(st.lists(halves, unique=True, min_size=1))
    wanted = data.draw(st.lists(halves, unique=True))
    ids, sought = (np.array(pairs, "<u8").reshape(-1, 2).view(np.uint8) for pairs in (every, wanted))
    expected = [every.index(pair) if pair in every else -1 for pair in wanted]
    assert find(ids, sought).tolist() == expected


def test_images_that_are_in_no_file_are_counted(pictures: Pictures) -> None:
    lost = pl.concat([series(pictures, [1, 2]), pl.Series([bytes(16), b"x" * 16], dtype=pl.Binary)])
    with pytest.raises(LakeError, match="2 images of the split are not in the images table"):
        locate(pictures.files, lost)


def test_images_of_one_shape_are_one_array_where_others_have_another_shape(tmp_path: Path) -> None:
    shapes = {"small": (2, 3, 1), "large": (2, 2, 3)}
    files = [str(tmp_path / f"{name}.parquet") for name in shapes]
    pixels = {name: np.random.default_rng(len(name)).integers(0, 256, (4, 12), np.uint8) for name in shapes}
    pixels["small"] = pixels["small"][:, :6]
    for file, (name, (height, width, channels)) in zip(files, shapes.items(), strict=True):
        rows = {
            "image_id": [f"{name}{n}".encode().ljust(16) for n in range(4)],
            "pixels": [row.tobytes() for row in pixels[name]],
            "height": [height] * 4,
            "width": [width] * 4,
            "channels": [channels] * 4,
        }
        pq.write_table(pa.table(rows), file)
    for name, shape in shapes.items():
        where = locate(files, pl.Series([f"{name}{n}".encode().ljust(16) for n in (2, 0)]))
        assert where.shape == shape
        np.testing.assert_array_equal(gather(where).reshape(2, -1), pixels[name][[2, 0]])
    with pytest.raises(LakeError, match=r"several shapes \(2x2x3, 2x3x1\): give a size"):
        locate(files, pl.Series([b"small1".ljust(16), b"large1".ljust(16)]))


def test_orders_stay_what_they_are() -> None:
    ids = np.arange(160, dtype=np.uint8).reshape(10, 16)
    assert epoch_order(ids, 0, 0).tolist() == [2, 5, 6, 3, 8, 4, 7, 0, 1, 9]
    assert epoch_order(ids, 2**70, 3).tolist() == [8, 5, 2, 4, 3, 6, 7, 9, 0, 1]
    assert epoch_order(ids, 0, 0, " groups").tolist() == [6, 5, 3, 2, 1, 9, 8, 0, 7, 4]
