"""How planted files depart from their originals: near copies on pixels, bad files on bytes."""

from collections.abc import Callable

import numpy as np

from pipeline.sources.glyphs.chance import Index, between, draws
from pipeline.sources.glyphs.draw import Pictures, add_noise
from pipeline.sources.glyphs.plan import Kind

_MOVES = ((1, -1), (1, 1), (2, -1), (2, 1))  # (axis, step): up, down, left, right
_IMAGE_DATA = 41  # bytes of a PNG before its image data: signature 8, header chunk 25, length and type of the next 8
_LENGTH = slice(33, 37)


def shifted(pictures: Pictures, index: Index, seed: int) -> Pictures:
    """Move every picture by one pixel, up, down, left or right; what moves in is black.

    Args:
        pictures: (n, 28, 28) uint8.
        index: (n,) int64, the index of each near copy.
        seed: the set's seed.

    Returns:
        (n, 28, 28) uint8.
    """
    moves = between(draws(seed, "move", index), 0, len(_MOVES) - 1)
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)))
    rolled = [np.roll(padded, step, axis=axis)[:, 1:-1, 1:-1] for axis, step in _MOVES]
    return np.stack(rolled)[moves, np.arange(len(pictures))]


def brightness(pictures: Pictures, index: Index, seed: int) -> Pictures:
    """Fade every picture to 80 to 95 % of its range, half of them towards black and half towards white.

    Args:
        pictures: (n, 28, 28) uint8.
        index: (n,) int64, the index of each near copy.
        seed: the set's seed.

    Returns:
        (n, 28, 28) uint8.
    """
    gain = between(draws(seed, "gain", index), 205, 243)[:, None, None]
    lift = (between(draws(seed, "lift", index), 0, 1) * 255)[:, None, None]
    return ((pictures * gain + lift * (256 - gain)) >> 8).astype(np.uint8)


def rethresholded(pictures: Pictures, _index: Index, _seed: int) -> Pictures:
    """Make every pixel black or white, cut at 128: the sign rule sees no difference to the original.

    Args:
        pictures: (n, 28, 28) uint8.

    Returns:
        (n, 28, 28) uint8, 0 or 255.
    """
    return np.where(pictures >= 128, 255, 0).astype(np.uint8)  # noqa: PLR2004 - the rule's own number


def noisy(pictures: Pictures, index: Index, seed: int) -> Pictures:
    """Change every pixel by up to 12, at random.

    Args:
        pictures: (n, 28, 28) uint8.
        index: (n,) int64, the index of each near copy.
        seed: the set's seed.

    Returns:
        (n, 28, 28) uint8.
    """
    return add_noise(pictures, np.full(len(index), 12), index, seed, "near noise")


NEAR: dict[Kind, Callable[[Pictures, Index, int], Pictures]] = {
    Kind.SHIFTED: shifted,
    Kind.BRIGHTNESS: brightness,
    Kind.RETHRESHOLDED: rethresholded,
    Kind.NOISY: noisy,
}


def spoil(png: bytes, kind: Kind, index: int, seed: int) -> bytes:
    """Turn a good file into a bad one.

    Args:
        png: a PNG as Pillow writes it, all its image data in one chunk.
        kind: EMPTY, TRUNCATED or NOT_AN_IMAGE.
        index: the file's index.
        seed: the set's seed.

    Returns:
        No bytes; the PNG up to 20 to 80 % of its image data; or a line of text with the index in it.
    """
    if kind == Kind.EMPTY:
        return b""
    if kind == Kind.NOT_AN_IMAGE:
        return f"This is file {index}, and it holds no image.\n".encode()
    percent = int(between(draws(seed, "cut", np.array([index])), 20, 80)[0])
    return png[: _IMAGE_DATA + int.from_bytes(png[_LENGTH], "big") * percent // 100]
