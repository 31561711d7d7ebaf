"""webdataset: tar shards that the webdataset library reads from end to end."""

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.arrays.exports.png import encode
from pipeline.arrays.exports.selection import PIECE_BYTES, Piece, Role, Selection, Work, pieces

SHARD_IMAGES = 10_000
SHARD_BYTES = 2**28
# The webdataset library and others skip a member whose name has no dot.
CLASSES = "__classes__"

# Made by tarfile: time 0, owner 0 without a name, mode 644. Name, size and sum are filled in.
_BLANK = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
_SIZE, _SUM = slice(124, 135), slice(148, 155)


class Samples(NamedTuple):
    """Pictures with their keys and class numbers."""

    keys: list[str]
    labels: list[int]
    piece: Piece


def write(folder: Path, selection: Selection, work: Work) -> None:
    """Write ROLE-000000.tar and so on: at most 10,000 images or 256 MiB each, one image at least.

    An image is two members, IMAGE_ID.png and IMAGE_ID.cls, which holds its class number, -1 for none. The first member
    of a shard, `__classes__`, is a JSON list of the class names: entry i names class i. Headers hold no owner and no
    time. Any shapes.
    """
    classes = _member(CLASSES, classes_text(selection.classes))
    for role in selection.roles:
        for number, shard in enumerate(_shards(role, work, classes)):
            with (folder / f"{role.name}-{number:06d}.tar").open("wb", buffering=2**20) as file:
                file.writelines(shard)
                # As tarfile ends an archive.
                file.write(bytes(-(file.tell() + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE))


def classes_text(classes: Sequence[str]) -> bytes:
    """Make the JSON text of a `__classes__` member; `pipeline.sources.exported` reads it."""
    return json.dumps([*classes], ensure_ascii=False).encode()


def records(samples: Samples) -> list[bytes]:
    """Encode pictures, in a worker, and make of each what stands in the tar: two members."""
    files = zip(samples.keys, samples.labels, encode(samples.piece), strict=True)
    return [_member(f"{key}.png", png) + _member(f"{key}.cls", str(label).encode()) for key, label, png in files]


def header(name: str, size: int) -> bytes:
    """Make a tar header as `tarfile.TarInfo.tobuf` does, but for a short ASCII name, and in a fifth of the time."""
    filled = bytearray(_BLANK)
    filled[: len(name)] = name.encode("ascii")
    filled[_SIZE] = b"%011o" % size
    # The sum is taken with blanks in its place.
    filled[_SUM] = b" " * 7
    filled[_SUM] = b"%06o\0" % sum(filled)
    return bytes(filled)


def _member(name: str, data: bytes) -> bytes:
    return header(name, len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _shards(role: Role, work: Work, first: bytes) -> Iterator[Iterator[bytes]]:
    """Deal records out to shards, which begin with `first`; each must be taken whole before the next."""
    waiting = (record for part in work.map(records, _samples(role, work)) for record in part)
    record = next(waiting, None)

    def shard() -> Iterator[bytes]:
        nonlocal record
        size, images = len(first), 0
        yield first
        while record is not None and images < SHARD_IMAGES and (not images or size + len(record) <= SHARD_BYTES):
            yield record
            size, images = size + len(record), images + 1
            record = next(waiting, None)

    while record is not None:
        yield shard()


def _samples(role: Role, work: Work) -> Iterator[Samples]:
    keys = role.rows["image_id"].bin.encode("hex")
    for piece in pieces(role, PIECE_BYTES):
        rows = slice(piece.start, piece.stop)
        yield Samples(keys[rows].to_list(), role.labels[rows].tolist(), piece)
        work.advance(len(piece.shapes))
