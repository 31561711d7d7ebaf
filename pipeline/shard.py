"""Shards of encoded images, which sources yield and the decoder reads."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

# Bytes of the state of a file; see `Files`.
STATE_BYTES = 8


@dataclass(frozen=True)
class Files:
    """Encoded images in files that a worker opens.

    Attributes:
        names: paths on disk, in the order of the shard's paths.
        states: for each file, a digest of `STATE_BYTES` bytes of its size and time of change, one after the other;
            empty if the source does not know them.
    """

    names: tuple[str, ...]
    states: bytes = b""


@dataclass(frozen=True)
class Blobs:
    """Encoded images in memory, in the order of the shard's paths."""

    data: tuple[bytes, ...]


@dataclass(frozen=True)
class Deferred:
    """Images that a worker reads or draws: a picklable function returns them in the order of the shard's paths.

    The function may raise SourceError, if the source turns out to be damaged.
    """

    make: "Callable[[], Blobs | Pixels]"


@dataclass(frozen=True)
class Pixels:
    """Decoded images: (n, height, width, channels) uint8, in the order of the shard's paths."""

    array: NDArray[np.uint8]


Contents: TypeAlias = Files | Blobs | Deferred | Pixels


class Reject(NamedTuple):
    """A reject: a file that is not an image of the lake, with the reason code (one of REASONS) and details."""

    path: str
    label: str | None
    reason: str
    detail: str
    file_size: int


# Every reason code of the rejects table, and its meaning. Queries use the codes: add codes, but do not rename them.
REASONS: Mapping[str, str] = {
    "empty": "the file has no bytes",
    "not_an_image": "the file is of no image format that is read",
    "no_decoder": "the file is of a format whose decoder is not installed; the detail names what to install",
    "truncated": "the file starts like an image and ends before its pixels do",
    "corrupt": "the file is an image whose bytes contradict one another",
    "too_large": "more bytes than decode.max_bytes, or more pixels than decode.max_pixels",
    "wrong_mode": "another mode or depth than decode.mode, or one that has no defined conversion",
    "wrong_size": "another height or width than decode.size",
    "unreadable": "the file cannot be opened or read from disk",
    "system_file": "left beside files by an operating system or tool: ._x, .DS_Store, Thumbs.db, desktop.ini; or in a "
    "hidden or system folder: .git, .ipynb_checkpoints, __MACOSX, @eaDir, $RECYCLE.BIN",
    "outside_splits": "lies in none of the folders that `splits` of the source names",
    "not_a_file": "a link, pipe, socket or device where a file should be",
    "bad_row": "a CSV row with a wrong number of values or one that is no whole number from 0 to 255, or a label that "
    "cannot be read or belongs to no picture",
}


@dataclass(frozen=True)
class Encoded:
    """One shard of encoded images.

    Attributes:
        shard: stable key, unique inside its dataset and split.
        fingerprint: digest that changes when the content of the shard may have changed.
        paths: path of each image inside the source, unique in the source.
        labels: class name of each image, or None.
        contents: the images, in the order of `paths`.
        rejects: rejects of the source.
        done: share of the source that is read when the shard is yielded, 0 to 1; None if unknown.
        respelled: normalised labels by the labels in the source, if they differ; None for no label.
    """

    shard: str
    fingerprint: str
    paths: tuple[str, ...]
    labels: tuple[str | None, ...]
    contents: Contents
    rejects: tuple[Reject, ...] = ()
    done: float | None = None
    respelled: Mapping[str, str | None] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of images and rejects."""
        return len(self.paths) + len(self.rejects)


# Positions of files in a listing: (n,) int64, ascending.
Positions: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Listing:
    """The files that a source lists, ordered by path. They may be put into shards in any way.

    Attributes:
        paths: path of each file inside the source.
        digests: (n, 2) uint64: for each file, a digest that changes when its shard must be read again.
        cut: cuts files into shards that are not too large: by key of the shard, the positions of its files.
        read: yields shards, given the positions of their files by key.
        older_fingerprint: returns the fingerprint of a shard with these files in lakes before 0.6.
    """

    paths: tuple[str, ...]
    digests: NDArray[np.uint64]
    cut: Callable[[Positions], dict[str, Positions]]
    read: Callable[[Mapping[str, Positions]], Iterator[Encoded]]
    older_fingerprint: Callable[[Positions], str]


@dataclass(frozen=True)
class Survey:
    """The fingerprints of a source, found without opening an image.

    Attributes:
        fingerprint: digest of the whole source.
        shards: fingerprints by shard key, as the source is cut for a new lake; None if the shards are only known after
            reading the source (an archive): then all shards have the fingerprint of the source.
        images: number of files; None if it is only known after reading the source.
        files: its files; None if the source does not list files.
    """

    fingerprint: str
    shards: Mapping[str, str] | None = field(default=None)
    images: int | None = None
    files: Listing | None = field(default=None, repr=False, compare=False)


# The fingerprint of a shard of listed files is the sum of the digests of its files, after this word. So the sum of the
# fingerprints of all shards of a source does not depend on how its files are put into shards.
_SUM = "files:"


def fingerprint_of_files(digests: NDArray[np.uint64]) -> str:
    """Return the fingerprint of a shard of listed files.

    Args:
        digests: (n, 2) uint64: those of the files, in any order.
    """
    return _SUM + "".join(f"{half:016x}" for half in digests.sum(axis=0, dtype=np.uint64).tolist())


def is_sum(fingerprint: str) -> bool:
    """Return whether a fingerprint is made by `fingerprint_of_files`; in lakes before 0.6 none is."""
    return fingerprint.startswith(_SUM)


def sum_of_fingerprints(fingerprints: Iterable[str]) -> str | None:
    """Return the fingerprint of the files of several shards together; None if one is no such sum."""
    marks = list(fingerprints)
    if not all(map(is_sum, marks)):
        return None
    halves = [[int(mark[len(_SUM) :][at : at + 16], 16) for at in (0, 16)] for mark in marks]
    return fingerprint_of_files(np.array(halves, np.uint64).reshape(-1, 2))
