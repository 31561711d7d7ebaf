from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from exported import export_main, labels_of, rows_of

from pipeline.arrays.exports import parquet, selection
from pipeline.lake_handle import Lake

SAME = ["image_id", "path", "label", "height", "width", "channels", "pixels", "content_hash"]


def check(lake: Lake, folder: Path, role: str) -> None:
    expected = rows_of(lake, role)
    found = pl.read_parquet(sorted(folder.glob(f"{role}-*.parquet")))
    assert found.select(SAME).equals(expected.select(SAME))
    assert found["label_index"].to_list() == labels_of(expected)
    arrow = pq.read_table(min(folder.glob(f"{role}-*.parquet")))
    assert arrow["pixels"].to_pylist() == expected["pixels"].to_list()[: len(arrow)]


def test_parquet_has_the_rows_in_order_for_polars_and_arrow(small_lake: Lake, tmp_path: Path) -> None:
    export_main(small_lake, tmp_path / "out", "parquet")
    for role in ("train", "test"):
        check(small_lake, tmp_path / "out", role)


def test_colour_and_several_shapes(rgb_lake: Lake, mixed_lake: Lake, tmp_path: Path) -> None:
    export_main(rgb_lake, tmp_path / "rgb", "parquet")
    check(rgb_lake, tmp_path / "rgb", "valid")
    export_main(mixed_lake, tmp_path / "mixed", "parquet")
    check(mixed_lake, tmp_path / "mixed", "train")
    assert pl.read_parquet(tmp_path / "mixed" / "train-00000.parquet").filter(label_index=-1)["label"].is_null().all()


@pytest.mark.parametrize("block", [1, 500, 2**28])
def test_row_groups_and_files_are_cut_by_pixels(
    mixed_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 200)
    monkeypatch.setattr(parquet, "FILE_BYTES", 700)
    monkeypatch.setattr(selection, "BLOCK_BYTES", block)
    export_main(mixed_lake, tmp_path / "out", "parquet")
    files = sorted((tmp_path / "out").glob("*.parquet"))
    assert len(files) > 1
    for file in files:
        groups = pq.ParquetFile(file)
        sizes = [sum(map(len, groups.read_row_group(n)["pixels"].to_pylist())) for n in range(groups.num_row_groups)]
        assert sizes
        assert max(sizes) <= 200
        assert sum(sizes) <= 700
    check(mixed_lake, tmp_path / "out", "train")
