"""Read MNIST's gzipped IDX files with plain numpy, as a script without imagelake does."""

import gzip
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray


def read_mnist(folder: Path, part: Literal["train", "t10k"]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the images, (n, 28, 28) of 0 to 255, and the labels, (n,) of 0 to 9, in the order of the files."""
    pixels = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)
