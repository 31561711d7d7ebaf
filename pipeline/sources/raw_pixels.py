"""Columns of a Parquet file that hold pixels themselves: bytes of uint8, row by row, channels last.

A binary column holds pixels if there are columns `height` and `width` and at least half of the first rows have as many
bytes as these say: height * width * channels. Where there is no column `channels`, the number of bytes tells: 1 or 3.

A row whose sizes make no picture is a reject, and so is one with another number of bytes.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.encoded import Blobs, Pixels

_HEIGHT, _WIDTH, _CHANNELS = "height", "width", "channels"
_LARGEST_SIDE = 2**31 - 1
# Portable graymap and pixmap: the only format that holds pixels of any size as they are.
_HEADS = {1: b"P5\n%d %d\n255\n", 3: b"P6\n%d %d\n255\n"}


def side_columns(schema: pa.Schema, image: str) -> tuple[str, ...]:
    """Find the columns of heights, widths and, where there is one, channels.

    Args:
        schema: of the file.
        image: name of the column of images.

    Returns:
        Two names or three; none where `image` is not plain binary, or heights or widths are missing.
    """
    kinds = [field.type for field in schema if field.name == image]
    if len(kinds) != 1 or pa.types.is_struct(kinds[0]):
        return ()
    numbers = [field.name for field in schema if pa.types.is_integer(field.type)]
    named = {name.lower(): name for name in numbers if numbers.count(name) == 1}
    if _HEIGHT not in named or _WIDTH not in named:
        return ()
    return tuple(named[name] for name in (_HEIGHT, _WIDTH, _CHANNELS) if name in named)


def sizes_table(columns: Sequence[pa.ChunkedArray | pa.Array]) -> pa.Table:
    """Make a table of the columns that `side_columns` found."""
    # Unsigned numbers that are too large become null, which is no size.
    read = [pc.if_else(pc.less_equal(column, _LARGEST_SIDE), column, None).cast(pa.int64()) for column in columns]
    return pa.table(read, names=[_HEIGHT, _WIDTH, _CHANNELS][: len(read)])


def are_sizes(sides: pa.Table) -> pa.ChunkedArray:
    """Tell which rows have the sizes of a picture: true or false for each."""
    good = pc.and_(pc.greater(sides[_HEIGHT], 0), pc.greater(sides[_WIDTH], 0))
    if _CHANNELS in sides.column_names:
        good = pc.and_(good, pc.is_in(sides[_CHANNELS], value_set=pa.array(list(_HEADS), pa.int64())))
    return pc.fill_null(good, False)  # noqa: FBT003 - the value that nulls become


def say_sizes(sides: pa.Table) -> list[str]:
    """Say of each row what its sizes are."""
    return [
        "no picture has these sizes: " + ", ".join(f"{name} {value}" for name, value in row.items())
        for row in sides.to_pylist()
    ]


def bytes_of(images: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Bring a column of any binary type to one that has every function of Arrow."""
    return images.cast(pa.large_binary())


def are_pixels(images: pa.Array, sides: pa.Table) -> bool:
    """Tell whether a column holds pixels: of most rows the number of bytes fits the sizes.

    Args:
        images: as `bytes_of` returns them.
        sides: as `sizes_table` returns them.
    """
    there = pc.and_(images.is_valid(), are_sizes(sides).combine_chunks())
    if not there.true_count:
        return False
    sizes = pc.binary_length(images.filter(there)).to_numpy(zero_copy_only=False)
    _, channels = _shapes(sizes, sides.filter(there))
    return bool(2 * np.count_nonzero(channels) >= len(channels))


def pictures_of(images: pa.ChunkedArray, sides: pa.Table) -> Blobs | Pixels:
    """Make pictures of pixels.

    Args:
        images: n rows without nulls, as `bytes_of` returns them.
        sides: their sizes, of which `are_sizes` is true.

    Returns:
        Pixels where all pictures have one shape; else a file for each, which only gives it a size. That of a row whose
        number of bytes does not fit its sizes is cut short.
    """
    data = images.combine_chunks()
    sizes = pc.binary_length(data).to_numpy(zero_copy_only=False)
    areas, channels = _shapes(sizes, sides)
    shapes = np.stack([*areas, channels], axis=1)
    if len(shapes) and channels[0] and (shapes == shapes[0]).all():
        first = int(np.frombuffer(data.buffers()[1], np.int64)[data.offset])
        flat = np.frombuffer(data.buffers()[2], np.uint8)
        return Pixels(flat[first : first + int(sizes.sum())].reshape(len(shapes), *shapes[0].tolist()))
    rows = zip(data.to_pylist(), shapes.tolist(), strict=True)
    return Blobs(tuple(_file(pixels, *shape) for pixels, shape in rows))


def _shapes(
    sizes: NDArray[np.integer], sides: pa.Table
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]:
    """Tell heights and widths, and the channels: 0 where the number of bytes does not fit."""
    height, width = (sides[name].to_numpy() for name in (_HEIGHT, _WIDTH))
    # Below 2**62, as every side is below 2**31.
    ratio, rest = np.divmod(sizes, height * width)
    found = np.where((rest == 0) & np.isin(ratio, list(_HEADS)), ratio, 0)
    if _CHANNELS in sides.column_names:
        found = np.where(found == sides[_CHANNELS].to_numpy(), found, 0)
    return (height, width), found


def _file(pixels: bytes, height: int, width: int, channels: int) -> bytes:
    head = _HEADS[channels or 1] % (width, height)
    return head + pixels if channels else head
