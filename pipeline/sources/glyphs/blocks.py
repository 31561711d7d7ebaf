"""Render a glyph set in blocks of files, in any process and order, and write the blocks to disk.

A block is five small values; the process that renders it makes the plan again, once, so nothing large is sent.
Blocks are written one by one as class folders or one tar.gz, under a temporary name that is renamed at the end.
"""

import gzip
import io
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.errors import SourceError
from pipeline.sources.glyphs.draw import NEAR, SIDE, Pictures, damage, draw_letters, stamp
from pipeline.sources.glyphs.plan import SPLITS, GlyphPlan, Index, Kind, labels, paths, plan_glyphs

_BAD = (Kind.EMPTY, Kind.TRUNCATED, Kind.NOT_AN_IMAGE)
_STAMPED_LIKE_ORIGINAL = (Kind.EXACT_COPY, Kind.CROSS_COPY, Kind.CONFLICT)

_plan = lru_cache(maxsize=2)(plan_glyphs)


@dataclass(frozen=True)
class GlyphBlock:
    """Consecutive files of one part.

    Attributes:
        rows: files in the train part of the whole set.
        seed: the set's seed.
        split: train or test.
        start: index of the first file, counted through both parts.
        stop: index after the last file.
    """

    rows: int
    seed: int
    split: str
    start: int
    stop: int


@dataclass(frozen=True)
class RenderedBlock:
    """A block's files, in the order of their indices.

    Attributes:
        paths: path inside the part, `label/name.png`.
        labels: class name of each file.
        data: bytes of each file.
    """

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    data: tuple[bytes, ...]


def blocks(plan: GlyphPlan, split: str, size: int = 8192) -> list[GlyphBlock]:
    """Divide a part into blocks. The block size changes memory and speed, but no file.

    Args:
        plan: the plan of the set.
        split: train or test.
        size: files per block, 1 or more.

    Returns:
        Blocks that cover the part once, in the order of the files.

    Raises:
        SourceError: there is no such part of the set.
    """
    if split not in SPLITS:
        raise SourceError(f"a glyph set has no part {split!r}. Parts: {', '.join(SPLITS)}")
    part = plan.span(split)
    starts = range(part.start, part.stop, size)
    return [GlyphBlock(plan.rows, plan.seed, split, start, min(start + size, part.stop)) for start in starts]


def render(block: GlyphBlock) -> RenderedBlock:
    """Render the files of a block. Deterministic: the same block gives the same bytes in any process.

    Returns:
        Their paths, labels and bytes.
    """
    plan = _plan(block.rows, block.seed)
    index = np.arange(block.start, block.stop)
    data = [_encode(picture) for picture in draw_files(plan, index)]
    for at in np.flatnonzero(np.isin(plan.kinds[index], _BAD)).tolist():
        file = int(index[at])
        data[at] = damage(data[at], Kind(plan.kinds[file]), file, plan.seed)
    return RenderedBlock(tuple(paths(plan, index)), tuple(labels(plan, index)), tuple(data))


def draw_files(plan: GlyphPlan, index: Index) -> Pictures:
    """Draw the image of each file; that of a bad file before it is damaged.

    A copy is drawn from the index of its original, so the original is not needed.

    Args:
        plan: the plan of the set.
        index: (n,) int64 indices of files.

    Returns:
        (n, 28, 28) uint8, stamped: two images are only equal if one is a copy of the other, or both of a third.
    """
    kinds, of = plan.kinds[index], plan.of[index]
    drawn_from = np.where(of < 0, index, of)
    pictures = draw_letters(plan.labels[drawn_from], drawn_from, plan.seed)
    for kind, alter in NEAR.items():
        at = np.flatnonzero(kinds == kind)
        pictures[at] = alter(pictures[at], index[at], plan.seed)
    return stamp(pictures, np.where(np.isin(kinds, _STAMPED_LIKE_ORIGINAL), drawn_from, index), plan.seed)


def _encode(picture: Pictures) -> bytes:
    from PIL import Image  # noqa: PLC0415 - only drawing needs Pillow

    file = io.BytesIO()
    Image.frombytes("L", (SIDE, SIDE), picture.tobytes()).save(file, "PNG")
    return file.getvalue()


_MTIME = 1_315_440_000  # 2011-09-08, notMNIST's own age; a time near zero makes tar warn
_BUFFER = 1 << 20


def write_folders(directory: Path, rendered: Iterable[RenderedBlock]) -> int:
    """Write class folders: `directory/label/name.png`.

    Args:
        directory: a folder that does not exist or is empty; its parents are made.
        rendered: blocks in any order; written one by one.

    Returns:
        Number of files.

    Raises:
        SourceError: `directory` is not empty.
    """
    directory = directory.resolve()  # "." has no name for the temporary folder
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise SourceError(f"{directory} is not empty. Delete it or name another folder for the glyphs")
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
        directory.rmdir()  # empty; not every system can rename to an existing folder
    partial.rename(directory)
    return count


def write_tar(file: Path, rendered: Iterable[RenderedBlock], prefix: str) -> int:
    """Write one tar.gz with the members `prefix/label/name.png`.

    The same blocks in the same order give the same archive, byte for byte: owner, mode and times are fixed.

    Args:
        file: the archive; replaced if it exists. Its parents are made.
        rendered: blocks in order; written one by one.
        prefix: top folder inside the archive.

    Returns:
        Number of files.
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
    """Write a tar stream member by member; `TarFile` would keep every header in memory."""
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
