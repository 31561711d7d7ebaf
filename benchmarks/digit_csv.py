"""MNIST's digits in the form of the digit-recognizer competition: train.csv with labels, test.csv without."""

import gzip
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

_LABELLED, _UNLABELLED = 42_000, 28_000


def write_digits(folder: Path, idx: Path) -> Path:
    """Write 42,000 labelled and 28,000 unlabelled rows, as many as the competition has, of MNIST's 70,000 digits.

    Args:
        folder: the target; existing files are kept.
        idx: folder of the four gzipped IDX files.

    Returns:
        The folder.
    """
    if (folder / "test.csv").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.concatenate([_read(idx / f"{part}-images-idx3-ubyte.gz", 16, 784) for part in ("train", "t10k")])
    labels = np.concatenate([_read(idx / f"{part}-labels-idx1-ubyte.gz", 8, 1) for part in ("train", "t10k")])[:, 0]
    names = [f"pixel{number}" for number in range(784)]
    frame = pl.DataFrame(pixels, schema=names)
    train = frame.head(_LABELLED).insert_column(0, pl.Series("label", labels[:_LABELLED]))
    train.write_csv(folder / "train.csv")
    frame.tail(_UNLABELLED).write_csv(folder / "test.csv")
    return folder


def _read(file: Path, offset: int, width: int) -> NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=offset).reshape(-1, width)
