"""Photographs read by other libraries, each as its documentation shows: for `photos.py`.

Ways that build tables from a folder are commands of their own, ways that feed a model are functions. A library that is
not installed is left out. SPDL needs the shared libraries of FFmpeg.
"""

import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 224
BATCH = 32


def files_of(folder: Path) -> list[str]:
    """List the photographs of class folders."""
    return sorted(entry.path for label in os.scandir(folder) for entry in os.scandir(label.path))


def huggingface(folder: Path, out: Path) -> None:
    """Read with the imagefolder builder of `datasets`, resize in two processes, and save."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_DATASETS_CACHE"] = str(out / "cache")
    from datasets import load_dataset  # noqa: PLC0415 - slow, and only this way needs it

    data = load_dataset("imagefolder", data_dir=str(folder), split="train")
    data.map(_resize_row, num_proc=2).save_to_disk(str(out / "saved"))


def _resize_row(row: dict[str, Any]) -> dict[str, Any]:
    return {"pixels": np.asarray(row["image"].convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)).tobytes()}


def daft(folder: Path, out: Path) -> None:
    """Read, decode, resize and write Parquet with Daft, with the bytes beside the pixels."""
    os.environ.update({"DAFT_ANALYTICS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0"})
    daft, f = import_module("daft"), import_module("daft.functions")
    found = daft.from_glob_path(f"{folder}/**/*.jpg").with_column("bytes", f.download(daft.col("path")))
    decoded = f.resize(f.decode_image(daft.col("bytes"), mode="RGB"), SIDE, SIDE)
    found.with_column("pixels", decoded).select("path", "bytes", "pixels").write_parquet(str(out), compression="zstd")


class _Photographs:
    """A map-style dataset that decodes with Pillow."""

    def __init__(self, folder: Path) -> None:
        self.files = files_of(folder)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, at: int) -> NDArray[np.uint8]:
        with Image.open(self.files[at]) as image:
            return np.array(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def torch_loader(folder: Path) -> int:
    """Read one epoch with a DataLoader of two workers that decode with Pillow; return the number of images."""
    from torch.utils.data import DataLoader  # noqa: PLC0415 - slow, and only this way needs it

    loader: Any = DataLoader
    return sum(len(batch) for batch in loader(_Photographs(folder), BATCH, shuffle=True, num_workers=2))


def spdl(folder: Path) -> int:
    """Read one epoch with a pipeline of SPDL, two threads; return the number of images."""
    io, builder = import_module("spdl.io"), import_module("spdl.pipeline").PipelineBuilder()
    files = files_of(folder)
    np.random.default_rng(0).shuffle(files)

    def load(batch: list[str]) -> Any:
        return io.to_numpy(io.load_image_batch(batch, width=SIDE, height=SIDE, pix_fmt="rgb24"))

    batches: Iterator[list[str]] = (files[at : at + BATCH] for at in range(0, len(files), BATCH))
    pipeline = builder.add_source(batches).pipe(load, concurrency=2).add_sink(4).build(num_threads=2)
    with pipeline.auto_stop():
        return sum(len(batch) for batch in pipeline)


_MODULES = {"huggingface": "datasets", "daft": "daft", "torch_loader": "torch", "spdl": "spdl"}
INGESTS: dict[str, Callable[[Path, Path], None]] = {
    way.__name__: way for way in (huggingface, daft) if find_spec(_MODULES[way.__name__])
}
FEEDS: dict[str, Callable[[Path], int]] = {
    way.__name__: way for way in (torch_loader, spdl) if find_spec(_MODULES[way.__name__])
}


if __name__ == "__main__":
    INGESTS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
