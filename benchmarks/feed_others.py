"""Shuffled batches by other libraries, each used as its documentation shows: for `feed_ways.py`."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from feed_mosaic import streaming
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, TensorDataset

BATCH = 256

Epochs = Callable[[int], Iterator[tuple[Any, Any]]]


def loader(dataset: Any, workers: int, **options: Any) -> Any:
    """Make a DataLoader that keeps its workers for all epochs."""
    return DataLoader(dataset, num_workers=workers, persistent_workers=workers > 0, **options)


class _Files(Dataset):  # type: ignore[misc] # torch may be missing, and is Any to the type checker
    """PNG files of class folders."""

    def __init__(self, folder: Path) -> None:
        names = sorted(folder.iterdir())
        self.files = [(entry.path, label) for label, name in enumerate(names) for entry in os.scandir(name)]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, at: int) -> tuple[NDArray[np.uint8], int]:
        path, label = self.files[at]
        with Image.open(path) as picture:
            return np.array(picture), label


def png(folder: Path, workers: int) -> Epochs:
    """Decode files with Pillow, one for each item."""
    data = loader(_Files(folder / "png"), workers, batch_size=BATCH, shuffle=True)
    return lambda _: iter(data)


def webdataset(folder: Path, workers: int) -> Epochs:
    """Read shards one after the other, shuffled in a buffer of 1,000."""
    import webdataset as wds  # noqa: PLC0415 - slow, and only this way needs it

    shards = sorted(map(str, (folder / "webdataset").glob("*.tar")))
    items = wds.WebDataset(shards, shardshuffle=len(shards)).shuffle(1000).decode(_decoded).to_tuple("png", "cls")
    data = loader(items.batched(BATCH), workers, batch_size=None)
    return lambda _: iter(data)


def _decoded(key: str, data: bytes) -> Any:

    return np.array(Image.open(io.BytesIO(data))) if key.endswith("png") else int(data)


def mosaic(folder: Path, workers: int) -> Epochs | None:
    """Read shards of raw pixels with MosaicML streaming."""
    found = streaming()
    if found is None:
        return None
    found.base.util.clean_stale_shared_memory()
    dataset = found.StreamingDataset(local=str(folder / "mosaic"), shuffle=True, batch_size=BATCH)
    data = loader(dataset, workers, batch_size=BATCH)
    return lambda _: ((batch["pixels"], batch["label"]) for batch in data)


def arrow_lists(folder: Path) -> Epochs:
    """Read lists of numbers, the default format of `datasets` for an array."""
    return _arrow(folder / "arrow_lists", lambda rows: np.array(rows, dtype=np.uint8))


def arrow_columns(folder: Path) -> Epochs:
    """Read bytes, one value for each image."""
    return _arrow(folder / "arrow_columns", lambda rows: np.frombuffer(b"".join(rows), dtype=np.uint8))


def _arrow(folder: Path, seen: Callable[[list[Any]], NDArray[np.uint8]]) -> Epochs:
    from datasets import load_from_disk  # noqa: PLC0415 - slow, and only these ways need it

    data = load_from_disk(folder)

    def epoch(number: int) -> Iterator[tuple[Any, Any]]:
        order = np.random.default_rng(number).permutation(len(data))
        for at in range(0, len(order), BATCH):
            batch = data[order[at : at + BATCH]]
            yield seen(batch["pixels"]).reshape(-1, 28, 28), np.array(batch["label"])

    return epoch


def tensor_dataset(folder: Path) -> Epochs:
    """Index tensors in memory with a whole batch of indices."""
    arrays = [np.load(folder / "npy" / f"train_{name}.npy") for name in ("images", "labels")]
    dataset = TensorDataset(*map(torch.from_numpy, arrays))
    sampler = BatchSampler(RandomSampler(dataset), BATCH, drop_last=False)
    data = DataLoader(dataset, sampler=sampler, batch_size=None)
    return lambda _: iter(data)
