"""Open arrays that `imagelake export --to npy` wrote: memory-mapped, with the same batches as the lake."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import arguments
from pipeline.arrays.epoch import Batches, Plan
from pipeline.arrays.feed import BUFFER_BYTES, Feed, Images
from pipeline.errors import FeedError

_METADATA = "export.json"


class NpyFolder:
    """A folder of exported arrays; made by `open_npy`.

    Attributes:
        folder: path of the folder.
        about: content of `export.json`: lake, release, split, sanitized, classes and more.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder, self.about = folder, about

    def __repr__(self) -> str:
        return f"open_npy({str(self.folder)!r})"

    def arrays(self, role: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Memory-map a role, in the order of its ranks.

        Args:
            role: train, valid or test.

        Returns:
            Pixels (n, height, width[, 3]) uint8, read-only, and labels (n,) int64, -1 for an image without a label.

        Raises:
            FeedError: the export has no such role, or its files are damaged or of different lengths.
        """
        pixels, labels, _ = self._load_role(role)
        return pixels, labels

    def batches(  # noqa: PLR0913 - the terms of a training loop
        self,
        role: str,
        *,
        batch_size: int,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        state: Mapping[str, str | int | bool] | None = None,
    ) -> Batches:
        """Iterate over an epoch of a role in shuffled batches; see `Lake.batches`."""
        feed = self.feed(role, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size, drop_last=drop_last)
        return feed.epoch(epoch, state=state)

    def feed(  # noqa: PLR0913 - the terms of a training loop
        self, role: str, *, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1, drop_last: bool = False
    ) -> Feed:
        """Prepare a role for training; see `Lake.feed`.

        Every epoch is a full shuffle. The lake gives the same one if the role fits into its buffer. There is no buffer
        here: the operating system caches the pages of the file, and frees them when memory is short.

        Raises:
            FeedError: as for `arrays`.
            ValueError: a number is out of range.
        """
        plan = Plan(batch_size, seed, BUFFER_BYTES, drop_last, rank, world_size)
        _, labels, ids = self._load_role(role)
        about = {**{key: self.about[key] for key in ("release", "split", "sanitized")}, "role": role}
        return Feed(Images(about, ids, labels, str(self._file(role, "images"))), plan)

    def _file(self, role: str, array: str) -> Path:
        return self.folder / f"{role}_{array}.npy"

    def _load_role(self, role: str) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8]]:
        roles = sorted(file.name.removesuffix("_images.npy") for file in self.folder.glob("*_images.npy"))
        if role not in roles:
            raise FeedError(f"{self.folder} has no role '{role}'. There are: {', '.join(roles) or 'none'}.")
        pixels = _open_array(self._file(role, "images"), np.uint8, "(n, height, width[, 3])", (3, 4))
        # Small, and every epoch reads all of them: copied into memory.
        labels = np.array(_open_array(self._file(role, "labels"), np.int64, "(n,)", (1,)))
        ids = np.array(_open_array(self._file(role, "ids"), np.uint8, "(n, 16)", (2,)))
        if len({len(pixels), len(labels), len(ids)}) > 1 or ids.shape[1] != 16:  # noqa: PLR2004 - bytes of an id
            raise FeedError(
                f"{self.folder}: the arrays of '{role}' do not belong together: images {pixels.shape}, labels "
                f"{labels.shape}, ids {ids.shape}. Export again."
            )
        return pixels, labels, ids


def open_npy(folder: str | Path) -> NpyFolder:
    """Open a folder that `imagelake export --to npy` wrote. No pickle is loaded.

    Args:
        folder: has `export.json` and, for each role, ROLE_images.npy (n, height, width[, 3]) uint8, ROLE_labels.npy
            (n,) int64 and ROLE_ids.npy (n, 16) uint8.

    Raises:
        FeedError: the folder has no such export, or `export.json` is damaged.
        TypeError: `folder` is not a path.
    """
    file = Path(arguments.place("folder", folder)) / _METADATA
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FeedError(
            f"{folder} has no {_METADATA}. Make it with: imagelake export LAKE SPLIT DIR --to npy"
        ) from None
    except (OSError, ValueError) as error:
        raise FeedError(f"{file} cannot be read ({error}). Export again.") from error
    if missing := {"release", "split", "sanitized"} - (about.keys() if isinstance(about, dict) else set()):
        raise FeedError(f"{file} has no {', '.join(sorted(missing))}. Export again.")
    if (form := about.get("form", "npy")) != "npy":
        raise FeedError(
            f"{folder} is an export of form {form}, which cannot be memory-mapped. Make one with: imagelake export "
            "LAKE SPLIT DIR --to npy"
        )
    return NpyFolder(Path(folder), about)


def _open_array(file: Path, dtype: type[np.generic], axes: str, dimensions: tuple[int, ...]) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise FeedError(f"{file} cannot be read as an array ({error}). Export again.") from error
    if array.dtype != dtype or array.ndim not in dimensions:
        raise FeedError(f"{file} holds {array.dtype} {array.shape}, not {np.dtype(dtype)} {axes}. Export again.")
    return array
