"""Decode the images of a shard one by one: with a fast decoder if possible, else with Pillow."""

import os
from collections.abc import Iterator
from functools import partial
from io import FileIO
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.decode.fast_decoders import fast_decoder
from pipeline.decode.picture import Rejected, convert, decode
from pipeline.recipe import DecodePart
from pipeline.shard import Blobs, Encoded, Files, Made, Pixels, Refused

# Position in the shard, size of the file in bytes, (height, width, channels) uint8, and whether colour or gray was
# converted. A plain tuple, because creating millions of named tuples is slow.
DecodedImage: TypeAlias = tuple[int, int, NDArray[np.uint8], bool]


def decode_images(shard: Encoded, spec: DecodePart) -> Iterator[DecodedImage | Refused]:
    """Decode the files of a shard, in order. Consume the iterator inside `strict_pillow()`.

    Args:
        shard: whose contents are not `Made`.
        spec: the recipe's `[decode]`.

    Yields:
        For every file the image, in the recipe's size and mode, or the reject.
    """
    contents = shard.contents
    if isinstance(contents, Made):
        raise TypeError("the contents of the shard are not made yet")
    if isinstance(contents, Pixels):
        yield from _convert_pixels(shard, contents.array, spec)
        return
    load = contents.data.__getitem__ if isinstance(contents, Blobs) else partial(_read_file, contents, spec)
    decode_fast = fast_decoder(spec)
    wanted_shape = None if spec.size is None else (*spec.size, spec.channels)
    for position in range(len(shard.paths)):
        size = 0
        try:
            data = load(position)
            size = len(data)
            pixels = decode_fast(data)
            converted = False
            if pixels is None:
                pixels, converted = decode(data, spec)
            elif pixels.shape != wanted_shape and not needs_no_conversion(pixels.shape, spec):
                pixels, converted = convert(pixels, spec)
            yield position, size, pixels, converted
        except Rejected as rejected:
            yield _reject(shard, position, size, rejected)
        except OSError as error:
            yield _reject(shard, position, 0, Rejected("unreadable", f"{error.strerror or error}"))


def needs_no_conversion(shape: tuple[int, ...], spec: DecodePart) -> bool:
    """Return whether an image of shape (height, width, channels) has the recipe's size and mode."""
    height, width, channels = shape
    right_size = spec.size in (None, (height, width)) and height * width <= spec.max_pixels
    return right_size and channels == spec.channels


def _convert_pixels(shard: Encoded, array: NDArray[np.uint8], spec: DecodePart) -> Iterator[DecodedImage | Refused]:
    for position, pixels in enumerate(array):
        try:
            yield position, pixels.nbytes, *convert(pixels, spec)
        except Rejected as rejected:
            yield _reject(shard, position, pixels.nbytes, rejected)


def _read_file(contents: Files, spec: DecodePart, position: int) -> bytes:
    with FileIO(contents.names[position]) as stream:
        # The file may have grown since it was listed. One byte above the limit is enough to reject it.
        return stream.read(min(os.fstat(stream.fileno()).st_size, spec.max_bytes) + 1)


def _reject(shard: Encoded, position: int, size: int, rejected: Rejected) -> Refused:
    return Refused(shard.paths[position], shard.labels[position], rejected.reason, rejected.detail, size)
