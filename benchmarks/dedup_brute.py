"""The alternatives of `dedup.py`: dense matrices, MD5 with np.where, and blocked float32 products, each optimized."""

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Places = NDArray[np.int64]

_ROWS, _COLUMNS = 2_048, 8_192
_DOUBT = 1e-5


def dense_sign(train: Pixels, test: Pixels) -> int:
    """Count test images that occur in train by the notebooks' ratio of inner products, a block of test at a time."""
    scaled, others = _scaled(train), _scaled(test)
    sizes, flagged = np.abs(scaled).T.copy(), 0
    for start in range(0, len(others), 1_000):
        part = others[start : start + 1_000]
        i, j = np.nonzero((part @ scaled.T) / (np.abs(part) @ sizes) >= 1 - _DOUBT)
        # The error of float32 can exceed the weight of one pixel, so the few ratios near 1 are computed in float64.
        a, b = part[i].astype(np.float64), scaled[j].astype(np.float64)
        flagged += len(np.unique(i[(a * b).sum(axis=1) / np.abs(a * b).sum(axis=1) >= 1 - 1e-12]))
    return flagged


def md5_where(train: Pixels, test: Pixels) -> int:
    """Count test images that occur in train, by MD5 and np.where for each of them, as published solutions do."""
    known = np.array([hashlib.md5(row, usedforsecurity=False).hexdigest() for row in train])
    found = 0
    for row in test:
        found += bool(len(np.where(known == hashlib.md5(row, usedforsecurity=False).hexdigest())[0]))
    return found


def md5_set(train: Pixels, test: Pixels) -> int:
    """Count test images that occur in train, by MD5 and a set: the fastest simple way."""
    known = {hashlib.md5(row, usedforsecurity=False).digest() for row in train}
    return sum(hashlib.md5(row, usedforsecurity=False).digest() in known for row in test)


def unit(pixels: Pixels) -> Floats:
    """Centre pictures and scale them to length 1, in float32."""
    rows = pixels.reshape(len(pixels), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: Floats = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return scaled


def products(left: Floats, right: Floats | None, threshold: float) -> Iterator[tuple[Places, Places]]:
    """Find all pairs by products of all, in blocks, with BLAS on every core; of one side, only half the blocks."""
    other = left if right is None else right
    out = np.empty((_ROWS, _COLUMNS), np.float32)
    for row in range(0, len(left), _ROWS):
        a = left[row : row + _ROWS]
        for column in range((row // _COLUMNS) * _COLUMNS if right is None else 0, len(other), _COLUMNS):
            b = other[column : column + _COLUMNS]
            block = np.matmul(a, b.T, out=out[: len(a), : len(b)]) if len(b) == _COLUMNS else a @ b.T
            i, j = np.nonzero(block >= np.float32(threshold))
            i, j = i + row, j + column
            keep = i < j if right is None else slice(None)
            yield i[keep], j[keep]


def _scaled(pixels: Pixels) -> Floats:
    return ((pixels.reshape(len(pixels), -1) - np.float32(127.5)) / np.float32(255)).astype(np.float32)
