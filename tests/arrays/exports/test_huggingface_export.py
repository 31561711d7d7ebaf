"""Read back by `datasets` itself, in a process of its own: its caches, warnings and threads stay out of the others."""

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from exported import export_main, labels_of, pictures_of, rows_of
from PIL import Image

from pipeline.arrays.exports import huggingface, parquet
from pipeline.lake_handle import Lake

READ = """
import hashlib, json, sys
import datasets, numpy as np
datasets.disable_progress_bars()
def read(name, options):
    out = {}
    for split, rows in datasets.load_dataset(name, **options).items():
        names = [v.names if hasattr(v, "names") else repr(v) for v in rows.features.values()]
        pictures = [np.asarray(row) for row in rows["image"]]
        out[split] = {
            "features": dict(zip(rows.features, names)), "kinds": [type(v).__name__ for v in rows.features.values()],
            "labels": rows["label"], "shapes": [p.shape for p in pictures],
            "pixels": [hashlib.sha256(p.tobytes()).hexdigest() for p in pictures],
            "image_id": rows["image_id"] if "image_id" in rows.features else None,
        }
    return out
print(json.dumps({export: read(*asked) for export, asked in json.loads(sys.argv[1]).items()}, default=list))
"""

# By export and split, what `datasets` reads.
Read = dict[str, dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def base(small_lake: Lake, rgb_lake: Lake, mixed_lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four exports; the one of `mixed` is in several files and chunks."""
    base = tmp_path_factory.mktemp("huggingface")
    export_main(small_lake, base / "small", "huggingface")
    export_main(small_lake, base / "folders", "imagefolder")
    export_main(rgb_lake, base / "rgb", "huggingface")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "FILE_BYTES", 700)
        patch.setattr(huggingface, "CHUNK_BYTES", 200)
        patch.setattr("pipeline.arrays.exports.selection.CHUNK_BYTES", 200)
        export_main(mixed_lake, base / "mixed", "huggingface")
    return base


@pytest.fixture(scope="module")
def read(base: Path) -> Read:
    """All exports, read by one process: it takes seconds to start."""
    files = {"fit": "data/train-*.parquet", "check": "data/validation-*.parquet"}
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "small": (str(base / "small"), {}),
        "mixed": (str(base / "mixed"), {}),
        "rgb": ("parquet", {"data_dir": str(base / "rgb"), "data_files": files}),
        "folders": ("imagefolder", {"data_dir": str(base / "folders")}),
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    variables = {**kept, "HF_HOME": str(base / "hf"), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(asked)], env=variables, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: Read = json.loads(done.stdout.splitlines()[-1])
    return found


def shown(lake: Lake, role: str) -> list[str]:
    return [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures_of(rows_of(lake, role))]


@pytest.mark.slow
def test_load_dataset_gives_images_and_class_labels(small_lake: Lake, rgb_lake: Lake, read: Read) -> None:
    assert set(read["small"]) == {"train", "test"}
    for role, rows in read["small"].items():
        assert rows["kinds"] == ["Image", "ClassLabel", "Value"]
        assert rows["features"]["label"] == ["A", "B"]
        assert rows["labels"] == labels_of(rows_of(small_lake, role))
        assert rows["pixels"] == shown(small_lake, role)
        assert rows["image_id"] == [key.hex() for key in rows_of(small_lake, role)["image_id"]]
    assert read["rgb"]["check"]["pixels"] == shown(rgb_lake, "valid")
    assert read["rgb"]["fit"]["shapes"] == [[6, 5, 3]] * 24


@pytest.mark.slow
def test_several_shapes_and_files(mixed_lake: Lake, base: Path, read: Read) -> None:
    files = sorted(path.name for path in (base / "mixed" / "data").iterdir())
    assert len(files) > 1
    assert files[0] == f"train-00000-of-{len(files):05d}.parquet"
    assert all(pq.read_metadata(base / "mixed" / "data" / name).num_rows for name in files)
    rows = read["mixed"]["train"]
    assert rows["pixels"] == shown(mixed_lake, "train")
    assert rows["labels"] == labels_of(rows_of(mixed_lake, "train"))
    assert -1 in rows["labels"]
    assert rows["features"]["label"] == mixed_lake.class_names("main")


def test_imagefolder_is_read_too(small_lake: Lake, read: Read) -> None:
    for role in ("train", "test"):
        rows, expected = read["folders"][role], rows_of(small_lake, role)
        assert rows["features"]["label"] == ["A", "B"]
        named = zip(labels_of(expected), shown(small_lake, role), strict=True)
        assert sorted(zip(rows["labels"], rows["pixels"], strict=True)) == sorted(named)


def test_pixels_are_png_without_loss(rgb_lake: Lake, base: Path) -> None:
    table = pq.read_table(base / "rgb" / "data" / "train-00000-of-00001.parquet").to_pylist()
    for row, picture in zip(table, pictures_of(rows_of(rgb_lake, "train")), strict=True):
        assert row["image"]["path"] == f"{row['image_id']}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))), picture)
