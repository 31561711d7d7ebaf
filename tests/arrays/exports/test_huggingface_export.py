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
name, options = sys.argv[1], json.loads(sys.argv[2])
read = datasets.load_dataset(name, **options)
out = {}
for split, rows in read.items():
    names = [v.names if hasattr(v, "names") else repr(v) for v in rows.features.values()]
    pictures = [np.asarray(row) for row in rows["image"]]
    out[split] = {
        "features": dict(zip(rows.features, names)), "kinds": [type(v).__name__ for v in rows.features.values()],
        "labels": rows["label"], "shapes": [p.shape for p in pictures],
        "pixels": [hashlib.sha256(p.tobytes()).hexdigest() for p in pictures],
        "image_id": rows["image_id"] if "image_id" in rows.features else None,
    }
print(json.dumps(out, default=list))
"""


def load(tmp_path: Path, name: str, **options: object) -> dict[str, Any]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    variables = {**kept, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READ, name, json.dumps(options)],
        env=variables,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return read


def shown(lake: Lake, role: str) -> list[str]:
    return [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures_of(rows_of(lake, role))]


def test_load_dataset_gives_images_and_class_labels(small_lake: Lake, rgb_lake: Lake, tmp_path: Path) -> None:
    export_main(small_lake, tmp_path / "small", "huggingface")
    read = load(tmp_path, str(tmp_path / "small"))
    assert set(read) == {"train", "test"}
    for role, rows in read.items():
        assert rows["kinds"] == ["Image", "ClassLabel", "Value"]
        assert rows["features"]["label"] == ["A", "B"]
        assert rows["labels"] == labels_of(rows_of(small_lake, role))
        assert rows["pixels"] == shown(small_lake, role)
        assert rows["image_id"] == [key.hex() for key in rows_of(small_lake, role)["image_id"]]
    export_main(rgb_lake, tmp_path / "rgb", "huggingface")
    files = {"fit": "data/train-*.parquet", "check": "data/validation-*.parquet"}
    read = load(tmp_path, "parquet", data_dir=str(tmp_path / "rgb"), data_files=files)
    assert read["check"]["pixels"] == shown(rgb_lake, "valid")
    assert read["fit"]["shapes"] == [[6, 5, 3]] * 24


def test_several_shapes_and_files(mixed_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "FILE_BYTES", 700)
    monkeypatch.setattr(huggingface, "CHUNK_BYTES", 200)
    monkeypatch.setattr("pipeline.arrays.exports.selection.CHUNK_BYTES", 200)
    export_main(mixed_lake, tmp_path / "out", "huggingface")
    files = sorted(path.name for path in (tmp_path / "out" / "data").iterdir())
    assert len(files) > 1
    assert files[0] == f"train-00000-of-{len(files):05d}.parquet"
    assert all(pq.read_metadata(tmp_path / "out" / "data" / name).num_rows for name in files)
    read = load(tmp_path, str(tmp_path / "out"))["train"]
    assert read["pixels"] == shown(mixed_lake, "train")
    assert read["labels"] == labels_of(rows_of(mixed_lake, "train"))
    assert -1 in read["labels"]
    assert read["features"]["label"] == mixed_lake.class_names("main")


def test_imagefolder_is_read_too(small_lake: Lake, tmp_path: Path) -> None:
    export_main(small_lake, tmp_path / "out", "imagefolder")
    read = load(tmp_path, "imagefolder", data_dir=str(tmp_path / "out"))
    for role in ("train", "test"):
        expected = rows_of(small_lake, role)
        assert read[role]["features"]["label"] == ["A", "B"]
        named = zip(labels_of(expected), shown(small_lake, role), strict=True)
        assert sorted(zip(read[role]["labels"], read[role]["pixels"], strict=True)) == sorted(named)


def test_pixels_are_png_without_loss(rgb_lake: Lake, tmp_path: Path) -> None:
    export_main(rgb_lake, tmp_path / "out", "huggingface")
    table = pq.read_table(tmp_path / "out" / "data" / "train-00000-of-00001.parquet").to_pylist()
    for row, picture in zip(table, pictures_of(rows_of(rgb_lake, "train")), strict=True):
        assert row["image"]["path"] == f"{row['image_id']}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))), picture)
