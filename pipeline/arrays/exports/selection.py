"""What is exported: the rows of each role, where their pixels lie, and a digest of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from pipeline.arrays.exports.scattered import Scattered, locate_scattered
from pipeline.arrays.locate import Located, locate
from pipeline.errors import LakeError

_SHAPE = ["height", "width", "channels"]


@dataclass(frozen=True)
class Role:
    """The images of one role.

    Attributes:
        name: train, valid or test.
        rows: one row an image in the order of ranks: columns rank, image_id, label_index (-1: none), label, path,
            dataset, split, kept, height, width, channels, content_hash.
        where: where their pixels lie; `Scattered` where they have several shapes.
    """

    name: str
    rows: pl.DataFrame
    where: Located | Scattered

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(height, width) for gray, (height, width, 3) for RGB; None where there are several."""
        if isinstance(self.where, Scattered):
            return None
        height, width, channels = self.where.shape
        return (height, width) if channels == 1 else (height, width, channels)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of pixels of every image: (n,) int64."""
        sizes: NDArray[np.int64] = self.shapes.prod(axis=1)
        return sizes

    @property
    def shapes(self) -> NDArray[np.int64]:
        """Height, width and channels of every image: (n, 3) int64."""
        return self.rows.select(pl.col(*_SHAPE).cast(pl.Int64)).to_numpy()

    @property
    def ids(self) -> NDArray[np.uint8]:
        """The ids: (n, 16) uint8."""
        return np.frombuffer(b"".join(self.rows["image_id"].to_list()), dtype=np.uint8).reshape(-1, 16)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Positions among the class names, -1 where an image has no label: (n,) int64."""
        return self.rows["label_index"].to_numpy()

    @property
    def one_shape(self) -> tuple[int, ...]:
        """The shape that one array of all images needs.

        Raises:
            LakeError: they have several.
        """
        if self.shape is None:
            shapes = self.rows.select(_SHAPE).unique().sort(_SHAPE)
            listed = ", ".join("x".join(map(str, row)) for row in shapes.head(5).rows())
            raise LakeError(
                f"the images of {self.name} have several shapes ({listed}): set decode.size in the recipe to get one "
                "array, or export to parquet, imagefolder, webdataset or huggingface, which take any shape."
            )
        return self.shape


@dataclass(frozen=True)
class Selection:
    """What is exported.

    Attributes:
        split: name of the split.
        roles: those with images, in the order train, valid, test.
        classes: class names; position i names label i.
    """

    split: str
    roles: tuple[Role, ...]
    classes: tuple[str, ...]


class Work(NamedTuple):
    """What a form is given to work with.

    Attributes:
        map: runs a picklable function over items, in their order; an engine's.
        advance: told how many images were written since it was told last.
    """

    map: Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
    advance: Callable[[int], None]


def place(name: str, rows: pl.DataFrame, files: Sequence[str]) -> Role:
    """Find where the pixels of a role lie.

    Args:
        name: of the role.
        rows: as `Role.rows`.
        files: Parquet files of the images table.

    Raises:
        LakeError: an image is in none of the files.
    """
    find = locate if rows.select(_SHAPE).n_unique() <= 1 else locate_scattered
    return Role(name, rows, find(files, rows["image_id"]))


def digest_rows(roles: Sequence[Role]) -> str:
    """Digest who is in which role, in which order, with which label.

    Returns:
        xxh3-128 over, for every role: its name in UTF-8, a zero byte, the number of images (8 bytes), their ids, their
        labels (8 bytes each), numbers little-endian; 32 hexadecimal digits.
    """
    digest = xxhash.xxh3_128()
    for role in roles:
        digest.update(f"{role.name}\0".encode() + len(role).to_bytes(8, "little"))
        digest.update(role.ids.tobytes())
        digest.update(role.labels.astype("<i8").tobytes())
    return digest.hexdigest()
