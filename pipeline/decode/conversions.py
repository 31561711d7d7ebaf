"""Bring stored images, or their originals, to one size when they are read: conversions for `pixels.gather`."""

from collections.abc import Callable
from functools import partial
from math import prod

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.decode import decode_file
from pipeline.decode.fast_decoders import fast_decoder
from pipeline.decode.picture import Rejected, convert, strict_pillow
from pipeline.errors import LakeError
from pipeline.hashing import pixels_of
from pipeline.pixels import Conversion
from pipeline.recipe import DecodePart
from pipeline.references import read_reference
from schemas.images import PIXELS

_Pixels = NDArray[np.uint8]


def resize_stored(spec: DecodePart) -> Conversion:
    """Resize the pixels of the images table.

    Args:
        spec: with `size` and `mode`; `fit` and `background` are used too.
    """
    columns = ("height", "width", "channels", "pixels")
    return Conversion(columns, partial(_resize, spec), _shape(spec))


def decode_originals(spec: DecodePart) -> Conversion:
    """Decode the files in the table `originals`. JPEGs are decoded at reduced scale, as in a build.

    Args:
        spec: as for `resize_stored`.
    """
    columns = ("image_id", "file_digest", "format", "bytes", "location")
    return Conversion(columns, partial(_decode, spec), _shape(spec))


def _shape(spec: DecodePart) -> tuple[int, int, int]:
    if spec.size is None:
        raise ValueError("images are brought to one size: the settings must have it")
    return (*spec.size, spec.channels)


def _resize(spec: DecodePart, rows: pa.Table) -> _Pixels:
    shapes = np.stack([rows[name].to_numpy() for name in ("height", "width", "channels")], axis=1)
    wanted = _shape(spec)

    def one(at: int, pixels: pa.BinaryScalar) -> _Pixels:
        image = np.frombuffer(pixels.as_buffer(), np.uint8).reshape(shapes[at])
        return image if image.shape == wanted else convert(image, spec)[0]

    return _stacked(wanted, rows["pixels"], one)


def _decode(spec: DecodePart, rows: pa.Table) -> _Pixels:
    fast = fast_decoder(spec)
    formats, locations, digests = (rows[name].to_pylist() for name in ("format", "location", "file_digest"))

    def one(at: int, value: pa.BinaryScalar) -> _Pixels:
        data = value.as_py() if value.is_valid else read_reference(locations[at], digests[at])
        if formats[at] == PIXELS:
            return convert(pixels_of(data), spec)[0]
        try:
            return decode_file(data, spec, fast)[0]
        except Rejected as rejected:
            raise LakeError(
                f"the original of image {rows['image_id'][at].as_py().hex()} cannot be decoded: {rejected.reason}, "
                f'{rejected.detail}. Read its stored pixels with decode = "stored".'
            ) from rejected

    return _stacked(_shape(spec), rows["bytes"], one)


def _stacked(
    shape: tuple[int, int, int], values: pa.ChunkedArray, one: Callable[[int, pa.BinaryScalar], _Pixels]
) -> _Pixels:
    out = np.empty((len(values), *shape), np.uint8)
    with strict_pillow():
        for at, value in enumerate(values):
            out[at] = one(at, value)
    return out.reshape(len(out), prod(shape))
