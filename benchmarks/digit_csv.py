"""MNIST's digits in the form of the digit-recognizer competition: train.csv with labels, test.csv without."""

from pathlib import Path

import numpy as np
import polars as pl
from mnist_idx import read_mnist

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
    images, labels = map(np.concatenate, zip(read_mnist(idx, "train"), read_mnist(idx, "t10k"), strict=True))
    names = [f"pixel{number}" for number in range(784)]
    frame = pl.DataFrame(images.reshape(-1, 784), schema=names)
    train = frame.head(_LABELLED).insert_column(0, pl.Series("label", labels[:_LABELLED]))
    train.write_csv(folder / "train.csv")
    frame.tail(_UNLABELLED).write_csv(folder / "test.csv")
    return folder
