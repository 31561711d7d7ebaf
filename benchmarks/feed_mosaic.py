"""MosaicML streaming, if it is installed. It has its own file, because importing it needs workarounds.

Run as a script, `feed_mosaic.py FOLDER PART` writes PART images of the npy export in FOLDER as its shards.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

_UNUSED = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "transformers",
    "transformers.feature_extraction_utils",
    "transformers.tokenization_utils_base",
    "transformers.models",
    "transformers.models.auto",
    "transformers.models.auto.tokenization_auto",
)


def streaming() -> Any:
    """Import MosaicML streaming; None if it is not installed.

    It imports names of torchvision and transformers for classes that are not used here. Not every build of torch has a
    torchvision, and transformers needs other versions of installed packages. Stand-ins replace both.
    """
    for name in _UNUSED:
        sys.modules.setdefault(name, _StandIn(name))
    try:
        return importlib.import_module("streaming")
    except ImportError as error:
        sys.stderr.write(f"bench: MosaicML streaming is not measured: {error}\n")
        return None


class _Nothing:
    pass


class _StandIn(ModuleType):
    VisionDataset = CIFAR10 = BatchFeature = BatchEncoding = AutoTokenizer = _Nothing
    to_tensor = None


def write(folder: Path, part: int) -> None:
    """Write shards of raw pixels."""
    found = streaming()
    if found is None:
        return
    pixels, labels = (np.load(folder / "npy" / f"train_{name}.npy", mmap_mode="r") for name in ("images", "labels"))
    columns = {"pixels": "ndarray:uint8:28,28", "label": "int64"}
    with found.MDSWriter(out=str(folder / "mosaic"), columns=columns) as writer:
        for picture, label in zip(pixels[:part], labels[:part].tolist(), strict=True):
            writer.write({"pixels": np.asarray(picture), "label": np.int64(label)})


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
