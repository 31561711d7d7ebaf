"""webdataset: tar shards that the webdataset library streams."""

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from pipeline.arrays.exports.file_names import name_files, write_manifest
from pipeline.arrays.exports.selection import (
    CHUNK_BYTES,
    Chunk,
    ExportContext,
    Role,
    Selection,
    encode_chunk,
    read_files,
)

SHARD_IMAGES = 10_000
SHARD_BYTES = 2**28
# The webdataset library, and others, skip a member whose name has no dot.
CLASSES = "__classes__"

# A header of tarfile with time 0, owner 0 without a name, and mode 644. `header` fills in name, size and checksum.
_EMPTY_HEADER = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
_SIZE, _CHECKSUM = slice(124, 135), slice(148, 155)


class Samples(NamedTuple):
    """Images with the names of their files and their class numbers."""

    names: list[str]
    labels: list[int]
    chunk: Chunk


def write(folder: Path, selection: Selection, context: ExportContext) -> None:
    """Write ROLE-000000.tar and so on: at most 10,000 images or 256 MiB per shard, and at least one image.

    An image is two members: NAME.EXTENSION, the original file if the lake has it, else IMAGE_ID.png; and NAME.cls with
    its class number, -1 for an image without a label. A dot in NAME becomes `_`, because the library cuts names at the
    first one. manifest.csv lists all images. The
    first member of a shard, `__classes__`, is a JSON list of the class names: entry i names class i. Headers have no
    owner and no time. Images may have any shapes.
    """
    classes = _member(CLASSES, classes_text(selection.classes))
    names = [name_files(role.rows, dots=False) for role in selection.roles]
    write_manifest(folder, selection, names)
    for role, named in zip(selection.roles, names, strict=True):
        for number, shard in enumerate(_shards(role, named, context, classes)):
            with (folder / f"{role.name}-{number:06d}.tar").open("wb", buffering=2**20) as file:
                file.writelines(shard)
                # The end of an archive, as tarfile writes it.
                file.write(bytes(-(file.tell() + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE))


def classes_text(classes: Sequence[str]) -> bytes:
    """Make the JSON text of a `__classes__` member; `pipeline.sources.exported` reads it."""
    return json.dumps([*classes], ensure_ascii=False).encode()


def encode_samples(samples: Samples) -> list[bytes]:
    """Encode images in a worker, and make the two tar members of each."""
    files = zip(samples.names, samples.labels, encode_chunk(samples.chunk), strict=True)
    return [
        _member(name, data) + _member(f"{name.partition('.')[0]}.cls", str(label).encode())
        for name, label, data in files
    ]


def header(name: str, size: int) -> bytes:
    """Make a tar header. For a short ASCII name it equals that of `tarfile` and takes a fifth of the time."""
    if not name.isascii() or len(name) > tarfile.LENGTH_NAME:
        long = tarfile.TarInfo(name)
        long.size = size
        return long.tobuf(tarfile.PAX_FORMAT)
    filled = bytearray(_EMPTY_HEADER)
    filled[: len(name)] = name.encode("ascii")
    filled[_SIZE] = b"%011o" % size
    # The checksum is computed with spaces in its own field.
    filled[_CHECKSUM] = b" " * 7
    filled[_CHECKSUM] = b"%06o\0" % sum(filled)
    return bytes(filled)


def _member(name: str, data: bytes) -> bytes:
    return header(name, len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _shards(role: Role, names: pl.Series, context: ExportContext, first: bytes) -> Iterator[Iterator[bytes]]:
    """Distribute records over shards that start with the member `first`. Read each shard to its end before the next."""
    # Originals need no work: a worker would only copy them.
    run = map if role.all_originals else context.map
    records = (record for part in run(encode_samples, _samples(role, names, context)) for record in part)
    record = next(records, None)

    def shard() -> Iterator[bytes]:
        nonlocal record
        size, images = len(first), 0
        yield first
        while record is not None and images < SHARD_IMAGES and (not images or size + len(record) <= SHARD_BYTES):
            yield record
            size, images = size + len(record), images + 1
            record = next(records, None)

    while record is not None:
        yield shard()


def _samples(role: Role, names: pl.Series, context: ExportContext) -> Iterator[Samples]:
    for chunk in read_files(role, CHUNK_BYTES):
        rows = slice(chunk.start, chunk.stop)
        yield Samples(names[rows].to_list(), role.labels[rows].tolist(), chunk)
        context.advance(len(chunk))
