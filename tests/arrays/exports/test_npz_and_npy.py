import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from exported import export_main, labels_of, pictures_of, rows_of

from pipeline.arrays.exports import selection
from pipeline.errors import LakeError
from pipeline.lake_handle import Lake


@pytest.mark.parametrize("sanitized", [True, False])
def test_npz_has_pixels_labels_and_ids_in_the_order_of_ranks(
    small_lake: Lake, tmp_path: Path, *, sanitized: bool
) -> None:
    export_main(small_lake, tmp_path / "out", "npz", sanitized=sanitized)
    with np.load(tmp_path / "out" / "main.npz") as arrays:
        assert sorted(arrays) == sorted(
            ["classes", *(f"{role}_{what}" for role in ("train", "test") for what in ("images", "labels", "ids"))]
        )
        assert arrays["classes"].tolist() == ["A", "B"]
        for role in ("train", "test"):
            pixels, labels = small_lake.arrays("main", role, sanitized=sanitized)
            np.testing.assert_array_equal(arrays[f"{role}_images"], pixels)
            np.testing.assert_array_equal(arrays[f"{role}_labels"], labels)
            assert (arrays[f"{role}_images"].dtype, arrays[f"{role}_labels"].dtype) == (np.uint8, np.int64)
            ids = rows_of(small_lake, role, sanitized=sanitized)["image_id"].to_list()
            assert [bytes(row) for row in arrays[f"{role}_ids"]] == ids
            assert arrays[f"{role}_ids"].dtype == np.uint8


def test_npy_can_be_mapped_and_its_index_joined(small_lake: Lake, tmp_path: Path) -> None:
    export_main(small_lake, tmp_path / "out", "npy")
    for role in ("train", "test"):
        mapped = np.load(tmp_path / "out" / f"{role}_images.npy", mmap_mode="r")
        pixels, labels = small_lake.arrays("main", role)
        assert isinstance(mapped, np.memmap)
        np.testing.assert_array_equal(mapped, pixels)
        np.testing.assert_array_equal(np.load(tmp_path / "out" / f"{role}_labels.npy"), labels)
        index = pl.read_parquet(tmp_path / "out" / f"{role}_index.parquet")
        expected = rows_of(small_lake, role)
        assert index.equals(expected.select(index.columns).cast(index.schema))
        ids = np.load(tmp_path / "out" / f"{role}_ids.npy")
        assert [bytes(row) for row in ids] == index["image_id"].to_list()
    assert np.load(tmp_path / "out" / "classes.npy").tolist() == ["A", "B"]


@pytest.mark.parametrize("form", ["npz", "npy"])
def test_colour_has_a_channel_axis(rgb_lake: Lake, tmp_path: Path, form: str) -> None:
    export_main(rgb_lake, tmp_path / "out", form)
    for role, count in (("train", 24), ("valid", 8)):
        if form == "npz":
            with np.load(tmp_path / "out" / "main.npz") as arrays:
                found = arrays[f"{role}_images"]
        else:
            found = np.load(tmp_path / "out" / f"{role}_images.npy")
        assert found.shape == (count, 6, 5, 3)
        np.testing.assert_array_equal(found, rgb_lake.arrays("main", role)[0])


@pytest.mark.parametrize("form", ["npz", "npy", "notebook"])
def test_arrays_of_several_shapes_are_refused_with_what_to_do(mixed_lake: Lake, tmp_path: Path, form: str) -> None:
    with pytest.raises(LakeError, match=r"several shapes \(3x4x1, .*set decode.size.*or export to parquet"):
        export_main(mixed_lake, tmp_path / "out", form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["npz", "npy", "parquet", "notebook"])
def test_blocks_leave_no_seams(small_lake: Lake, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    export_main(small_lake, tmp_path / "whole", form)
    monkeypatch.setattr(selection, "BLOCK_BYTES", 28 * 28 * 7)
    export_main(small_lake, tmp_path / "blocks", form)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "blocks" / path.name).read_bytes()


def test_export_json_tells_what_is_in_the_folder(small_lake: Lake, tmp_path: Path) -> None:
    told = export_main(small_lake, tmp_path / "a", "npy")
    shown = {name: told[name] for name in ("lake", "release", "split", "form", "sanitized", "classes", "images")}
    assert shown == {
        "lake": small_lake.root,
        "release": 1,
        "split": "main",
        "form": "npy",
        "sanitized": True,
        "classes": ["A", "B"],
        "images": 150,
    }
    assert told["roles"]["test"]["images"] == 30
    assert told["roles"]["test"]["shape"] == [28, 28]
    other = export_main(small_lake, tmp_path / "b", "parquet")
    assert (
        other["digest"] == told["digest"] != export_main(small_lake, tmp_path / "c", "npy", sanitized=False)["digest"]
    )
    assert json.loads((tmp_path / "a" / "export.json").read_text())["imagelake"]


def test_rows_of_a_role_alone(small_lake: Lake, tmp_path: Path) -> None:
    told = export_main(small_lake, tmp_path / "out", "npz", roles=["test"])
    assert list(told["roles"]) == ["test"]
    with np.load(tmp_path / "out" / "main.npz") as arrays:
        assert set(arrays) == {"classes", "test_images", "test_labels", "test_ids"}
        assert arrays["test_labels"].tolist() == labels_of(rows_of(small_lake, "test"))
        expected = np.stack(pictures_of(rows_of(small_lake, "test")))
        np.testing.assert_array_equal(arrays["test_images"], expected)
