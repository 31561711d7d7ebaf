"""Ways to read shuffled batches from the folder that `feed_data.py` wrote: for `feed.py`.

As a script it measures one way in its own process: `feed_ways.py WAY FOLDER EPOCHS` prints JSON with the seconds to the
first batch and of the first epoch, both from opening, the seconds and processor seconds of EPOCHS later epochs, and the
content of an epoch that is not timed.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import feed_others as others
import numpy as np

from pipeline import Lake, open_npy
from pipeline.arrays.spill import SPILL_BYTES

BATCH = 256
QUARTER = 4

Batches = Iterator[tuple[Any, Any]]
Epochs = Callable[[int], Batches]


class Way(NamedTuple):
    """A way to read batches.

    Attributes:
        name: name in the table.
        open: from the folder to a function from the number of an epoch to its batches; None if it is not installed.
        part: whether it runs on a part of the images, being slow.
    """

    name: str
    open: Callable[[Path], Epochs | None]
    part: bool = False


def _mapped(folder: Path) -> Epochs:
    pixels = np.load(folder / "npy" / "train_images.npy", mmap_mode="r")
    labels = np.load(folder / "npy" / "train_labels.npy")

    def epoch(number: int) -> Batches:
        order = np.random.default_rng(number).permutation(len(labels))
        for at in range(0, len(order), BATCH):
            rows = order[at : at + BATCH]
            yield pixels[rows], labels[rows]

    return epoch


def _lake(folder: Path) -> Epochs:
    return Lake(folder / "lake").feed("main", "train", batch_size=BATCH).epoch


def _windows(folder: Path, spill_bytes: int = SPILL_BYTES) -> Epochs:
    lake = Lake(folder / "lake")
    quarter = len(lake.members("main", "train")) * 28 * 28 // QUARTER
    return lake.feed("main", "train", batch_size=BATCH, buffer_bytes=quarter, spill_bytes=spill_bytes).epoch


def _npy(folder: Path) -> Epochs:
    return open_npy(folder / "npy").feed("train", batch_size=BATCH).epoch


def _torch(source: Callable[[Path], Any], workers: int) -> Callable[[Path], Epochs]:
    def opened(folder: Path) -> Epochs:
        dataset = source(folder).torch()
        loader = others.loader(dataset, workers, batch_size=None)

        def epoch(number: int) -> Batches:
            dataset.set_epoch(number)
            return iter(loader)

        return epoch

    return opened


def _lake_feed(folder: Path) -> Any:
    return Lake(folder / "lake").feed("main", "train", batch_size=BATCH)


def _npy_feed(folder: Path) -> Any:
    return open_npy(folder / "npy").feed("train", batch_size=BATCH)


def _both(name: str, make: Callable[..., Epochs | None]) -> list[Way]:
    return [Way(f"{name}, {workers} workers", partial(make, workers=workers), part=True) for workers in (0, 2)]


DECODED_AGAIN = "imagelake, lake, a quarter held, no spill file"
BOUND = Way("np.load memory map, random indices: the bound", _mapped)
FAST = [
    BOUND,
    Way("imagelake, lake", _lake),
    Way("imagelake, lake, a quarter held", _windows),
    Way(DECODED_AGAIN, partial(_windows, spill_bytes=0)),
    Way("imagelake, npy", _npy),
    Way("imagelake, lake, DataLoader, 0 workers", _torch(_lake_feed, 0)),
    Way("imagelake, npy, DataLoader, 0 workers", _torch(_npy_feed, 0)),
    Way("TensorDataset with a batch sampler", others.tensor_dataset),
]
SLOW = [
    Way("imagelake, lake, DataLoader, 2 workers", _torch(_lake_feed, 2)),
    *_both("DataLoader over PNG files", others.png),
    *_both("WebDataset", others.webdataset),
    *_both("MosaicML streaming", others.mosaic),
    Way("HuggingFace datasets, arrow lists", others.arrow_lists, part=True),
    Way("HuggingFace datasets, arrow binary", others.arrow_columns, part=True),
]
WAYS = {way.name: way for way in (*FAST, *SLOW)}


def measure(way: Way, folder: Path, epochs: int) -> dict[str, Any]:
    """Time a way; see the module."""
    started = time.perf_counter()
    opened = way.open(folder)
    if opened is None:
        return {}
    batches = opened(0)
    count = len(next(batches)[1])
    first = time.perf_counter() - started
    count += sum(len(labels) for _, labels in batches)
    whole = time.perf_counter() - started
    later, processor = [], []
    for number in range(1, epochs + 1):
        started, begun = time.perf_counter(), time.process_time()
        count += sum(len(labels) for _, labels in opened(number))
        later.append(time.perf_counter() - started)
        processor.append(time.process_time() - begun)
    summary = _summarize(opened(epochs + 1))
    return {
        "first": first,
        "whole": whole,
        "later": later,
        "processor": processor,
        "summary": summary,
        "counted": count,
    }


def _summarize(batches: Batches) -> dict[str, Any]:
    images, total, counts = 0, 0, np.zeros(10, np.int64)
    for pixels, labels in batches:
        images += len(labels)
        total += int(np.asarray(pixels).sum(dtype=np.int64))
        counts += np.bincount(np.asarray(labels), minlength=10)
    return {"images": images, "sum": total, "labels": counts.tolist()}


if __name__ == "__main__":
    json.dump(measure(WAYS[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3])), sys.stdout)
