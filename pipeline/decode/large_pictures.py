"""Decode very large pictures in turn, one at a time on this machine, so that their memory does not add up."""

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import portalocker
import simplejpeg
from PIL import Image

from pipeline.decode.picture import PNG_SIGNATURE, formats_for
from pipeline.decode.reduced import LARGE, decodes_in_strips, jpeg_scale
from pipeline.recipe import DecodePart

# Smaller files than this are taken for small pictures, unless they are PNG, whose size is read at once.
_SMALL_FILE = 16_000


def in_turn(data: bytes, spec: DecodePart) -> AbstractContextManager[None]:
    """Wait, if a picture has more than 25 million pixels to decode, until no other such picture is being decoded.

    Args:
        data: the encoded file.
        spec: the recipe's `[decode]`.
    """
    return _turn() if _pixels_to_decode(data, spec) > LARGE else nullcontext()


def _pixels_to_decode(data: bytes, spec: DecodePart) -> int:
    if data.startswith(PNG_SIGNATURE):
        return int.from_bytes(data[16:20]) * int.from_bytes(data[20:24])
    if len(data) < _SMALL_FILE:
        return 0
    # A damaged header is reported when the picture is decoded.
    with suppress(Exception):
        if data.startswith(b"\xff\xd8\xff"):
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            scale: int = jpeg_scale(height, width, spec) if decodes_in_strips(data) else 1
            return int(height * width // scale**2)
        with Image.open(io.BytesIO(data), formats=formats_for(data)) as image:
            return image.width * image.height
    return 0


@contextmanager
def _turn() -> Iterator[None]:
    """Lock the folder for temporary files; the system releases the lock if this process is killed.

    A file to lock would be left behind. Where a folder cannot be opened, as on Windows, this does not wait.
    """
    try:
        handle = os.open(tempfile.gettempdir(), os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        with suppress(portalocker.LockException):
            portalocker.lock(handle, portalocker.LOCK_EX)
        yield
    finally:
        os.close(handle)
