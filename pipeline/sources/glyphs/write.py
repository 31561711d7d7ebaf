"""Rendered blocks on disk: class folders or one tar.gz.

Both stream: a block is dropped once it is written. Both write under a temporary name and rename at the end,
so a run that is killed leaves nothing under the final name.
"""

import gzip
import io
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import SourceError
from pipeline.sources.glyphs.blocks import RenderedBlock

_MTIME = 1_315_440_000  # 2011-09-08, notMNIST's own age; a time near zero makes tar warn
_BUFFER = 1 << 20


def write_folders(directory: Path, rendered: Iterable[RenderedBlock]) -> int:
    """Write class folders: `directory/label/name.png`.

    Args:
        directory: where to; must not exist, or be empty. Its parents are made.
        rendered: blocks in any order; taken one by one.

    Returns:
        Files written.

    Raises:
        SourceError: `directory` holds something already.
    """
    directory = directory.resolve()  # "." has no name to put beside
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise SourceError(f"{directory} exists already; remove it or name another folder for the glyphs")
    partial = _partial(directory)
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    made: set[str] = set()
    count = 0
    for block in rendered:
        for label in set(block.labels) - made:
            (partial / label).mkdir()
        made.update(block.labels)
        for path, data in zip(block.paths, block.data, strict=True):
            (partial / path).write_bytes(data)
        count += len(block.paths)
    if directory.exists():
        directory.rmdir()  # empty; not every system renames onto a folder
    partial.rename(directory)
    return count


def write_tar(file: Path, rendered: Iterable[RenderedBlock], prefix: str) -> int:
    """Write one tar.gz with the members `prefix/label/name.png`.

    The same blocks in the same order give the same archive, byte for byte: owner, mode and times are fixed.

    Args:
        file: the archive; replaced if it exists. Its parents are made.
        rendered: blocks in order; taken one by one.
        prefix: top folder inside the archive.

    Returns:
        Files written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(file)
    with (
        partial.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
        io.BufferedWriter(packed, _BUFFER) as out,
    ):
        count = _write_members(out, rendered, prefix)
    partial.replace(file)
    return count


def _write_members(out: BinaryIO, rendered: Iterable[RenderedBlock], prefix: str) -> int:
    """Write a tar stream member by member: `TarFile` would keep a record of each in memory."""
    size = 0
    count = 0
    for block in rendered:
        for path, data in zip(block.paths, block.data, strict=True):
            size += out.write(_header(f"{prefix}/{path}", len(data)))
            size += out.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        count += len(block.paths)
    end = 2 * tarfile.BLOCKSIZE
    out.write(bytes(end + -(size + end) % tarfile.RECORDSIZE))
    return count


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    member.mtime = _MTIME
    return member.tobuf(tarfile.GNU_FORMAT)


def _partial(final: Path) -> Path:
    return final.with_name(f".{final.name}.partial")
