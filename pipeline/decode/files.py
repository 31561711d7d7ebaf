"""The pictures of a shard, one by one: decoded by whoever is quickest, judged by Pillow."""

import os
from collections.abc import Iterator
from functools import partial
from io import FileIO
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.decode.fast_decoders import quick_decoder
from pipeline.decode.picture import Unfit, convert, decode
from pipeline.recipe import DecodePart
from pipeline.shard import Blobs, Encoded, Files, Made, Pixels, Refused

# Position in the shard, bytes of the file, (height, width, channels) uint8, and whether the picture was of the other
# kind (colour in a gray lake, gray in a colour lake). Not a named tuple: there are many.
Picture: TypeAlias = tuple[int, int, NDArray[np.uint8], bool]


def pictures(shard: Encoded, spec: DecodePart) -> Iterator[Picture | Refused]:
    """Decode the files of a shard, in their order; to be consumed inside `strict_pillow()`.

    Args:
        shard: whose contents are not `Made`.
        spec: the recipe's `[decode]`.

    Yields:
        The picture of every file, in the recipe's size and mode, or why there is none.
    """
    contents = shard.contents
    if isinstance(contents, Made):
        raise TypeError("make the contents first")
    if isinstance(contents, Pixels):
        yield from _converted(shard, contents.array, spec)
        return
    load = contents.data.__getitem__ if isinstance(contents, Blobs) else partial(_file, contents, spec)
    quick = quick_decoder(spec)
    usual = None if spec.size is None else (*spec.size, spec.channels)
    for position in range(len(shard.paths)):
        size = 0
        try:
            data = load(position)
            size = len(data)
            pixels = quick(data)
            converted = False
            if pixels is None:
                pixels, converted = decode(data, spec)
            elif pixels.shape != usual and not fits(pixels.shape, spec):
                pixels, converted = convert(pixels, spec)
            yield position, size, pixels, converted
        except Unfit as unfit:
            yield _refused(shard, position, size, unfit)
        except OSError as error:
            yield _refused(shard, position, 0, Unfit("unreadable", f"{error.strerror or error}"))


def fits(shape: tuple[int, ...], spec: DecodePart) -> bool:
    """Tell whether a picture of (height, width, channels) is what the recipe asks for, as it is."""
    height, width, channels = shape
    right_size = spec.size in (None, (height, width)) and height * width <= spec.max_pixels
    return right_size and channels == spec.channels


def _converted(shard: Encoded, array: NDArray[np.uint8], spec: DecodePart) -> Iterator[Picture | Refused]:
    for position, pixels in enumerate(array):
        try:
            yield position, pixels.nbytes, *convert(pixels, spec)
        except Unfit as unfit:
            yield _refused(shard, position, pixels.nbytes, unfit)


def _file(contents: Files, spec: DecodePart, position: int) -> bytes:
    with FileIO(contents.names[position]) as stream:
        # The file may have grown since it was listed: one byte more than is allowed is enough to turn it away.
        return stream.read(min(os.fstat(stream.fileno()).st_size, spec.max_bytes) + 1)


def _refused(shard: Encoded, position: int, size: int, unfit: Unfit) -> Refused:
    return Refused(shard.paths[position], shard.labels[position], unfit.reason, unfit.detail, size)
