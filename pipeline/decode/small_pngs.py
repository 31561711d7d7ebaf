"""Decode many small PNGs of one size at once: inflated one by one, and their filters undone for all together.

libpng spends most of its time on a small picture in setting itself up. Here a file costs one call of igzip and one
checksum. Only the plainest files are decoded: 8-bit gray or RGB, not interlaced, with one chunk of pixels and no other,
all checksums right, exactly as many pixels as the header says. All other files are left to the other decoders, so that
neither pixels nor reject reasons depend on this one. See docs/decisions/0010-c-decoders.md.

References:
    PNG (Portable Network Graphics) Specification, section 9, "Filtering".
"""

import math
from collections.abc import Sequence
from itertools import compress, repeat

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from pipeline.decode.fast_decoders import (
    PNG_CHANNELS,
    PNG_END,
    PNG_HEAD,
    PNG_HEADER_BYTES,
    PNG_OVERHEAD,
    PNG_SIDES,
)

# The largest picture that is decoded here, in bytes of pixels. For larger ones libpng is as fast.
_LARGEST = 3072
# Fewest files of one size that are decoded here: each step of numpy costs as much as many pictures.
FEWEST = 64
# Bytes of the shortest file, and before and after the content of the chunk of pixels.
_SHORTEST, _DATA, _TAIL = PNG_OVERHEAD + 1, PNG_HEADER_BYTES + 8, 4 + len(PNG_END)
# The checksum of a chunk is of its type and content.
_TYPE_CHECKSUM = isal_zlib.crc32(b"IDAT")
# The first byte of the content holds the size of a window, which is at most 7 << 4.
_WINDOWS = 0x80
_ISAL_ERROR: type[Exception] = isal_zlib.IsalError  # type: ignore[assignment] # its stub calls the class an instance

Bytes = NDArray[np.uint8]


def small_png_header(data: bytes) -> bytes:
    """Return the header of a file, if it is that of a small PNG that this module decodes; else nothing.

    Returns:
        The signature, size, kind and checksum of the PNG. Files with equal headers can be decoded together.
    """
    head = data[:PNG_HEADER_BYTES]
    if not head.startswith(PNG_HEAD) or head[24:29] not in PNG_CHANNELS or len(head) < PNG_HEADER_BYTES:
        return b""
    intact = isal_zlib.crc32(head[12:29]) == int.from_bytes(head[29:])
    return head if intact and 0 < np.prod(shape_of(head), dtype=object) <= _LARGEST else b""


def shape_of(header: bytes) -> tuple[int, int, int]:
    """Return (height, width, channels) of a PNG by its header."""
    width, height = PNG_SIDES(header, 16)
    return height, width, PNG_CHANNELS[header[24:29]]


def decode_small_pngs(files: Sequence[bytes], header: bytes) -> tuple[list[int], Bytes]:
    """Decode the files with a header, if there are enough of them.

    Args:
        files: encoded files of any kind.
        header: made by `small_png_header`.

    Returns:
        Positions of the decoded files in `files`, ascending, and their pixels: (n, height, width, channels) uint8.
    """
    shape = height, width, channels = shape_of(header)
    line = 1 + width * channels
    alike = [at for at, data in enumerate(files) if data.startswith(header) and len(data) >= _SHORTEST]
    if len(alike) < FEWEST:
        return [], np.empty((0, *shape), np.uint8)
    which = np.array(alike)
    which = which[_are_minimal([files[at] for at in alike], height * line)]
    packed = [files[at][_DATA:-_TAIL] for at in which.tolist()]
    raws = _inflate(packed)
    complete = np.array([len(raw) == height * line for raw in raws], bool)
    lines = np.frombuffer(b"".join(compress(raws, complete)), np.uint8).reshape(-1, height, line)
    known = (lines[:, :, 0] <= max(_FILTERS)).all(axis=1)
    if not known.all():
        lines = lines[known]
    filtered = np.ascontiguousarray(lines[:, :, 1:]).reshape(-1, *shape)
    return which[complete][known].tolist(), _undo_filters(lines[:, :, 0], filtered)


def _are_minimal(files: Sequence[bytes], length: int) -> NDArray[np.bool_]:
    """Return which files are a header, one intact chunk of pixels and an end, without a sign of a bomb.

    Args:
        files: PNGs of at least `_SHORTEST` bytes.
        length: bytes of the filtered lines.
    """
    sizes = np.fromiter(map(len, files), np.int64, len(files))
    ends = sizes.cumsum()
    joined = np.frombuffer(b"".join(files), np.uint8)

    def fields(starts: NDArray[np.int64], count: int) -> Bytes:
        found: Bytes = joined[starts[:, None] + np.arange(count)]
        return found

    def numbers(starts: NDArray[np.int64]) -> NDArray[np.int64]:
        return fields(starts, 4).view(">u4")[:, 0].astype(np.int64)

    chunks, packed = ends - sizes + PNG_HEADER_BYTES, sizes - PNG_OVERHEAD
    minimal = (fields(chunks + 4, 4) == np.frombuffer(b"IDAT", np.uint8)).all(axis=1)
    minimal &= (fields(ends - len(PNG_END), len(PNG_END)) == np.frombuffer(PNG_END, np.uint8)).all(axis=1)
    # Pixels that do not shrink take a little more space than before.
    minimal &= (numbers(chunks) == packed) & (packed <= 2 * length + _LARGEST) & (joined[chunks + 8] < _WINDOWS)
    contents = [data[_DATA:-_TAIL] for data in files]
    checksums = np.fromiter(map(isal_zlib.crc32, contents, repeat(_TYPE_CHECKSUM)), np.int64, len(files))
    found: NDArray[np.bool_] = minimal & (numbers(ends - _TAIL) == checksums)
    return found


def _inflate(packed: Sequence[bytes]) -> list[bytes]:
    """Decompress the pixels of files; nothing for those that are damaged, although their checksums are right."""
    try:
        return list(map(isal_zlib.decompress, packed))
    except _ISAL_ERROR:
        if len(packed) == 1:
            return [b""]
        half = len(packed) // 2
        return _inflate(packed[:half]) + _inflate(packed[half:])


def _undo_filters(kinds: Bytes, pixels: Bytes) -> Bytes:
    """Undo the filter of every line, the same line of all pictures at a time.

    Args:
        kinds: (n, height) uint8, the filter of each line.
        pixels: (n, height, width, channels) uint8, filtered; changed.
    """
    count, height, *rest = pixels.shape
    # A line as one value: numpy copies values faster than rows of an array.
    whole = np.dtype((np.void, math.prod(rest)))
    lines = pixels.reshape(count, height, whole.itemsize).view(whole)[..., 0]
    before = np.zeros(count, whole)
    for kind, line in zip(np.ascontiguousarray(kinds.T), lines.T, strict=True):
        for filtered, undo in _FILTERS.items():
            rows = np.flatnonzero(kind == filtered)
            if len(rows):
                own, above = (part[rows].view(np.uint8).reshape(-1, *rest) for part in (line, before))
                line[rows] = np.ascontiguousarray(undo(own, above)).reshape(len(rows), -1).view(whole)[:, 0]
        before = line
    return pixels


def _undo_sub(line: Bytes, _: Bytes) -> Bytes:
    added: Bytes = np.add.accumulate(line, axis=1, dtype=np.uint8)
    return added


def _undo_up(line: Bytes, above: Bytes) -> Bytes:
    return line + above


def _undo_average(line: Bytes, above: Bytes) -> Bytes:
    by_column, up = _by_column(line), _by_column(above)
    left = np.zeros_like(up[0])
    for column, over in zip(by_column, up, strict=True):
        _add(column, (left + over) >> 1)
        left = column
    return by_column.swapaxes(0, 1).astype(np.uint8)


def _undo_paeth(line: Bytes, above: Bytes) -> Bytes:
    by_column, up = _by_column(line), _by_column(above)
    # Above left, and how much it is below what is above; nothing is left of the first column.
    before = np.concatenate([np.zeros_like(up[:1]), up[:-1]])
    rise = up - before
    to_left = np.abs(rise)
    left = np.zeros_like(up[0])
    for column, over, corner, across, near in zip(by_column, up, before, rise, to_left, strict=True):
        # The one that is nearest to left + over - corner; the first of equals.
        down = left - corner
        to_over, to_corner = np.abs(down), np.abs(across + down)
        nearest = np.where(to_over <= to_corner, over, corner)
        _add(column, np.where(near <= np.minimum(to_over, to_corner), left, nearest))
        left = column
    return by_column.swapaxes(0, 1).astype(np.uint8)


def _add(column: NDArray[np.int16], predicted: NDArray[np.int16]) -> None:
    np.bitwise_and(np.add(column, predicted, out=column), 255, out=column)


def _by_column(line: Bytes) -> NDArray[np.int16]:
    """Copy a line of (n, width, channels) as (width, n, channels)."""
    return np.ascontiguousarray(line.swapaxes(0, 1), np.int16)


_FILTERS = {1: _undo_sub, 2: _undo_up, 3: _undo_average, 4: _undo_paeth}
