"""Law: images that are read by id are those that the tables have, in the order of the ids."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from feeding import Pictures
from making import as_folder, recipe

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError
from pipeline.id_index import IdIndex
from pipeline.lake_handle import Lake
from pipeline.pixels import gather, locate


def test_pixels_come_in_the_order_of_the_ids(small_lake: Lake) -> None:
    rows = small_lake.scan("images").collect().sample(fraction=1, shuffle=True, seed=3)
    wanted = np.stack([np.frombuffer(pixels, np.uint8).reshape(28, 28) for pixels in rows["pixels"]])
    np.testing.assert_array_equal(small_lake.read(rows["image_id"]), wanted)
    hexadecimal = [one.hex().upper() for one in rows["image_id"][:3]]
    np.testing.assert_array_equal(small_lake.read(hexadecimal), wanted[:3])
    np.testing.assert_array_equal(small_lake.read(rows["image_id"].to_list()[-1:]), wanted[-1:])
    assert np.shape(small_lake.read(rows["image_id"][:2], size=(9, 7))) == (2, 9, 7)
    assert len(small_lake.read([])) == 0


def test_no_ids_give_no_images(small_lake: Lake, rgb_lake: Lake) -> None:
    assert np.shape(small_lake.read([], size=(8, 9))) == (0, 8, 9)
    assert np.shape(rgb_lake.read([], size=(8, 9))) == (0, 8, 9, 3)
    assert small_lake.read([], ragged="list") == []


def test_images_of_several_shapes(mixed_lake: Lake) -> None:
    rows = mixed_lake.scan("images").select("image_id", "height", "width", "pixels").collect()
    found = mixed_lake.read(rows["image_id"], ragged="list")
    assert [one.tobytes() for one in found] == rows["pixels"].to_list()
    assert [one.shape for one in found] == rows.select("height", "width").rows()
    same = rows.filter(pl.struct("height", "width") == pl.struct("height", "width").first())
    assert np.shape(mixed_lake.read(same["image_id"])) == (len(same), *same.row(0)[1:3])
    assert np.shape(mixed_lake.read(rows["image_id"], ragged="pad")) == (
        len(rows),
        *rows.select("height", "width").max().row(0),
    )
    with pytest.raises(LakeError, match="several shapes"):
        mixed_lake.read(rows["image_id"])


def test_originals_are_decoded_again(tmp_path: Any) -> None:
    from making import encoded, pictures  # noqa: PLC0415 - only here

    made = pictures(4, size=(40, 60))
    as_folder(tmp_path / "set", {f"A/{i}.png": encoded(made[i]) for i in range(4)})
    lake = Lake(
        build(recipe(tmp_path, {"uri": "set"}, decode={"longest": 10, "originals": "keep"}), engine=LocalEngine(1)).root
    )
    rows = lake.scan("images").select("image_id", "path").collect().sort("path", descending=True)
    np.testing.assert_array_equal(lake.read(rows["image_id"], size=(40, 60), decode="original"), made[::-1])


@pytest.mark.parametrize(
    ("ids", "error", "said"),
    [
        (["00" * 16], LakeError, "1 of 1 ids are of no image of the lake, first 0000"),
        ([b"x" * 16, b"y" * 16], LakeError, "2 of 2 ids are of no image"),
        (["abc"], LakeError, "16 bytes or 32 hexadecimal digits"),
        ([b"short"], LakeError, "16 bytes or 32 hexadecimal digits"),
        ([1, 2], TypeError, "16 bytes or 32 hexadecimal digits"),
        ("00" * 16, TypeError, "a sequence of ids"),
        (["00" * 16] * 2, LakeError, "an id twice"),
        ([b"x" * 16, "00" * 16], TypeError, "all as bytes or all as text"),
        (pl.DataFrame({"image_id": ["00" * 16]}), TypeError, "one column, such as"),
        (pl.LazyFrame({"image_id": ["00" * 16]}), TypeError, "one column, such as"),
    ],
)
def test_other_ids_are_one_clear_line(small_lake: Lake, ids: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        small_lake.read(ids)


def test_the_index_finds_what_locate_finds(pictures: Pictures) -> None:
    index = IdIndex(pictures.files, with_shapes=True)
    ids = pl.concat([pl.read_parquet(file, columns=["image_id"])["image_id"] for file in pictures.files])
    for chosen in (ids, ids.shuffle(seed=1)[:57], ids[:1], ids[-1:]):
        np.testing.assert_array_equal(gather(index.locate(chosen)), gather(locate(pictures.files, chosen)))


def test_ids_that_share_their_first_half_are_told_apart(tmp_path: Any) -> None:
    halves = [bytes(8), b"\1" * 8, b"\xff" * 8]
    ids = [first + second for first in halves for second in halves]
    rows = {"height": 1, "width": 1, "channels": 1}
    frame = pl.DataFrame({"image_id": ids[::2] + ids[1::2]}).with_columns(**{k: pl.lit(v) for k, v in rows.items()})
    frame.write_parquet(tmp_path / "a.parquet")
    index = IdIndex([str(tmp_path / "a.parquet")], with_shapes=True)
    chosen = pl.Series(ids)
    order = frame.with_row_index()
    expected = chosen.to_frame("image_id").join(order, on="image_id", how="left", maintain_order="left")["index"]
    assert index.locate(chosen).row.tolist() == expected.to_list()
    with pytest.raises(LakeError, match="of no image"):
        index.locate(pl.Series([bytes(8) + b"\2" * 8]))
