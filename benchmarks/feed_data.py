"""The inputs of `feed.py`: a lake, its npy export, and the same images in the formats of other loaders."""

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from glyph_data import IMAGELAKE, Glyphs
from lake_builds import build, write_recipe
from numpy.typing import NDArray
from PIL import Image
from watched import run

from pipeline import Lake

SPLIT = """
[[split]]
name = "main"
seed = 133
sanitize = "exact"
train = {{ from = "train", size = {size} }}
test = {{ from = "test", size = {test} }}
"""
_SHARDS = 8

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


def write_all(folder: Path, drawn: Glyphs, size: int, part: int) -> dict[str, Any]:
    """Write every format below `folder`.

    Args:
        folder: an empty folder.
        drawn: archives to build the lake from.
        size: images of the train role.
        part: number of images in the formats of the slow ways.

    Returns:
        The expected result of all ways, which is also in `facts.json` in the folder: for the whole role and for the
        part, the number of images, the sum of their pixels, and the number of images of each label.
    """
    sys.stderr.write("bench: building the lake and writing the other forms\n")
    build(write_recipe(folder, [drawn.train, drawn.test], ("exact",), SPLIT.format(size=size, test=size // 20)))
    run([str(IMAGELAKE), "export", str(folder / "lake"), "main", str(folder / "npy"), "--to", "npy"], memory=False)
    pixels, labels = Lake(folder / "lake").arrays("main", "train")
    few = (pixels[:part], labels[:part])
    facts = {"whole": summarize(pixels, labels), "part": summarize(*few)}
    for write in (_png, _webdataset, _arrow):
        write(folder, few)
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    return facts


def summarize(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return the number of images, the sum of their pixels, and the number of images of each label."""
    counts = np.bincount(labels, minlength=10).tolist()
    return {"images": len(labels), "sum": int(pixels.sum(dtype=np.int64)), "labels": counts}


def _png(folder: Path, images: Arrays) -> None:
    for n, (picture, label) in enumerate(zip(*images, strict=True)):
        file = folder / "png" / str(label) / f"{n:06d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_encoded(picture))


def _webdataset(folder: Path, images: Arrays) -> None:
    (folder / "webdataset").mkdir()
    for shard in range(_SHARDS):
        with tarfile.open(folder / "webdataset" / f"{shard:03d}.tar", "w") as archive:
            for n, (picture, label) in enumerate(zip(*(array[shard::_SHARDS] for array in images), strict=True)):
                for ending, data in (("png", _encoded(picture)), ("cls", str(label).encode())):
                    info = tarfile.TarInfo(f"{n:06d}.{ending}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


def _arrow(folder: Path, images: Arrays) -> None:
    from datasets import Dataset, Features, List, Value  # noqa: PLC0415 - slow, and only this form needs it

    flat = images[0].reshape(len(images[0]), -1)
    for form, column, rows in (
        ("lists", List(Value("uint8")), flat.tolist()),
        ("binary", Value("binary"), [row.tobytes() for row in flat]),
    ):
        features = Features({"pixels": column, "label": Value("int64")})
        made = Dataset.from_dict({"pixels": rows, "label": images[1].tolist()}, features=features)
        made.save_to_disk(folder / f"arrow_{form}")


def _encoded(picture: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()
