"""Hashes that identify images, contents, files and settings in a lake, and a pseudo-random order of images.

All hashes are 128-bit XXH3 (version 0.8, seed 0) in canonical, big-endian form, except digests of files, which are
SHA-256. Existing lakes depend on their byte layout, so golden tests fix it.

The order needs no random generator: `order_keys` computes a number for every image from its id and a seed. The order is
therefore the same on any engine, for any number of cores and for any listing order, and adding an image does not move
the others.

References:
    SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. The constants of the
    finaliser are David Stafford's ("Mix13").
"""

import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

# Bytes of pixels in one block. Temporary arrays of this size stay in the processor's cache.
_BLOCK_BYTES = 2**18

Bytes = NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)


def hash_rows(rows: Bytes) -> Bytes:
    """Hash every row of a matrix.

    Each row is a view of one buffer and is hashed by one call into C; nothing is copied.

    Args:
        rows: (n, m) uint8, C-contiguous.

    Returns:
        (n, 16) uint8: xxh3-128 of each row's m bytes, in the order of the rows.
    """
    return _stack(map(xxhash.xxh3_128_digest, np.ascontiguousarray(rows)))


def content_hashes(pixels: Bytes) -> Bytes:
    """Hash the content of images: xxh3-128 of height, width, channels (uint32, little-endian) and the pixels.

    Args:
        pixels: (n, height, width, channels) uint8.

    Returns:
        (n, 16) uint8. Equal for equal pixels of equal shape; a 20x10 and a 10x20 image with the same bytes differ.
    """
    return hash_rows(with_shape(flat(pixels), pixels.shape[1:]))


def file_digest(data: bytes | memoryview) -> bytes:
    """Digest the encoded bytes of a file: SHA-256, 32 bytes, as `sha256sum` prints it in hexadecimal."""
    return hashlib.sha256(data).digest()


def pixel_digests(pixels: Bytes) -> list[bytes]:
    """Digest images that a source holds as pixels, and not as encoded files.

    Args:
        pixels: (n, height, width, channels) uint8: the values of the source, before any conversion.

    Returns:
        SHA-256 of height, width, channels (uint32, little-endian) and the pixels, 32 bytes each, in the same order.
    """
    of_shape = hashlib.sha256(np.array(pixels.shape[1:], dtype="<u4").tobytes())

    def digest(row: Bytes) -> bytes:
        state = of_shape.copy()
        state.update(row.data)
        return state.digest()

    return list(map(digest, np.ascontiguousarray(flat(pixels))))


def flat(pixels: NDArray[Scalar]) -> NDArray[Scalar]:
    """View each image as one row: (n, ...) to (n, m), also when n is 0."""
    return pixels.reshape(len(pixels), math.prod(pixels.shape[1:]))


def pixel_sums(pixels: Bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sum the pixel values and the squared pixel values of every image, exactly.

    Args:
        pixels: (n, height, width, channels) uint8.

    Returns:
        Two (n,) int64: the sums of the values (0 to 255 each) and the sums of their squares.
    """
    rows = flat(pixels)
    sums, squares = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    step = max(1, _BLOCK_BYTES // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        # 255 * 255 fits in 16 bits.
        values = rows[part].astype(np.uint16)
        sums[part] = values.sum(axis=1, dtype=np.int64)
        squares[part] = np.square(values, out=values).sum(axis=1, dtype=np.int64)
    return sums, squares


def with_shape(rows: Bytes, shape: tuple[int, ...]) -> Bytes:
    """Put the image's shape in front of every row, so that images of different shapes never have equal rows.

    Args:
        rows: (n, m) uint8.
        shape: (height, width, channels).

    Returns:
        (n, 12 + m) uint8, a copy.
    """
    prefix = np.frombuffer(np.array(shape, dtype="<u4").tobytes(), dtype=np.uint8)
    out = np.empty((len(rows), len(prefix) + rows.shape[1]), dtype=np.uint8)
    out[:, : len(prefix)] = prefix
    out[:, len(prefix) :] = rows
    return out


def pixels_of(data: bytes) -> Bytes:
    """Undo `with_shape` for one row: (height, width, channels) uint8."""
    height, width, channels = np.frombuffer(data, "<u4", 3).tolist()
    return np.frombuffer(data, np.uint8, offset=12).reshape(height, width, channels)


def image_ids(dataset: str, split: str, paths: Iterable[str]) -> Bytes:
    r"""Make the ids of images from their origin: xxh3-128 of UTF-8 `dataset \0 split \0 path`.

    Args:
        dataset: dataset name.
        split: split name.
        paths: path of each image inside its source.

    Returns:
        (n, 16) uint8, in the order of the paths.
    """
    prefix = f"{dataset}\0{split}\0".encode()
    return _stack(xxhash.xxh3_128_digest(prefix + path.encode()) for path in paths)


def digest_of(value: Any) -> str:  # noqa: ANN401 - any value that JSON can hold
    """Compute the digest of a JSON-like value; the order of keys does not matter.

    Args:
        value: anything that `json.dumps` accepts.

    Returns:
        xxh3-128 of its canonical JSON, 32 hexadecimal digits.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return xxhash.xxh3_128_hexdigest(text.encode())


def _stack(digests: Iterable[bytes]) -> Bytes:
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 16)


Words = NDArray[np.uint64]

_GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


def mix64(words: Words) -> Words:
    """Scramble 64-bit words with the SplitMix64 step, a bijection whose output looks random.

    Args:
        words: uint64 of any shape.

    Returns:
        uint64 of the same shape; unequal inputs give unequal outputs.
    """
    out = words + _GOLDEN_RATIO
    out ^= out >> np.uint64(30)
    out *= _MULTIPLIER_1
    out ^= out >> np.uint64(27)
    out *= _MULTIPLIER_2
    out ^= out >> np.uint64(31)
    return out


def order_keys(image_ids: NDArray[np.uint8], seed: int, purpose: str) -> Words:
    """Compute the number to sort each image by.

    Args:
        image_ids: (n, 16) uint8.
        seed: the user's seed; any integer.
        purpose: what the order is used for. Orders with one seed and different purposes are independent.

    Returns:
        (n,) uint64, uniform over the whole range.
    """
    halves = np.ascontiguousarray(image_ids).view("<u8").astype(np.uint64, copy=False)
    digest = xxhash.xxh3_128_digest(f"{seed}\0{purpose}".encode())
    salt = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    return mix64(mix64(halves[:, 0] ^ salt[0]) ^ halves[:, 1] ^ salt[1])
