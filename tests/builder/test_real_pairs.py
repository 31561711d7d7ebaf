"""The rules that compare, on real pictures, against brute force: every pair of all, in whole numbers and in bits."""

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest
from making import DATA, needs_data
from numpy.typing import NDArray
from PIL import Image

from pipeline.arrow_columns import from_binary
from pipeline.dedup.matching import Block, match
from pipeline.dedup.rules import parse_rule
from pipeline.dedup.rules.comparison import FromPixels

pytestmark = needs_data

Pixels = NDArray[np.uint8]
Places = NDArray[np.int64]
# Rows of the left side that are compared with all behind them at a time.
_STEP = 1024


@lru_cache(maxsize=1)
def notmnist() -> Pixels:
    """Every fourth image of notMNIST_small: (4,681, 28, 28, 1)."""
    return read_notmnist(4)


@lru_cache(maxsize=1)
def all_notmnist() -> Pixels:
    """The whole notMNIST_small: (18,724, 28, 28, 1)."""
    return read_notmnist(1)


def read_notmnist(step: int) -> Pixels:
    """Read every `step`th image of notMNIST_small, without its two empty files."""
    with tarfile.open(DATA / "notMNIST_small.tar.gz") as archive:
        members = [member for member in archive if member.isfile() and member.size][::step]
        files = map(archive.extractfile, members)
        return np.stack([np.asarray(Image.open(io.BytesIO(file.read()))) for file in files if file])[..., None]


@lru_cache(maxsize=1)
def mnist() -> Pixels:
    """The test images of MNIST: (10,000, 28, 28, 1)."""
    data = gzip.decompress((DATA / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(data, np.uint8, offset=16).reshape(-1, 28, 28, 1)


def numbers(ids: Pixels) -> Places:
    return np.asarray(np.ascontiguousarray(ids).view(">u8")[:, 1], np.int64)


def matched(name: str, pixels: Pixels) -> tuple[Places, NDArray[np.float32]]:
    """What a rule finds: numbers i * 2^32 + j of all pairs, i < j, ascending, and their scores."""
    rule = parse_rule(name).comparison
    assert rule is not None
    assert isinstance(rule, FromPixels)
    ids = np.zeros((len(pixels), 2), ">u8")
    ids[:, 1] = np.arange(len(pixels))
    block = Block(ids.view(np.uint8), rule.index(pixels))
    tables = list(match(rule, block, None, lambda wanted: pixels[numbers(wanted)]))
    left, right = (
        np.concatenate([numbers(from_binary(table[side].combine_chunks(), 16)) for table in tables])
        for side in ("left_id", "right_id")
    )
    assert (left < right).all()
    order = np.argsort(left << 32 | right)
    scores: NDArray[np.float32] = np.concatenate([table["score"].to_numpy() for table in tables])
    return (left << 32 | right)[order], scores[order]


def maybe_near(rows: Places, least: float) -> Iterator[Places]:
    """Pairs whose cosine in float32 is at least something: of any with 784 values it errs by less than 1e-4."""
    wide = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit = (wide / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    for start in range(0, len(unit), _STEP):
        i, j = np.nonzero(unit[start : start + _STEP] @ unit[start:].T >= least)
        yield np.stack([i, j])[:, i < j] + start


def brute_force(pixels: Pixels, threshold: str) -> tuple[Places, NDArray[np.float64]]:
    """All pairs at a threshold and their scores: what float32 leaves is decided in whole numbers of Python's."""
    rows, t = pixels.reshape(len(pixels), -1).astype(np.int64), Fraction(threshold)
    i, j = np.concatenate(list(maybe_near(rows, float(t) - 1e-3)), axis=1)
    sums, n = rows.sum(axis=1), rows.shape[1]
    spread = n * np.einsum("ij,ij->i", rows, rows) - sums**2
    steps = np.array_split(np.arange(len(i)), 1 + len(i) // 10_000)
    products = np.concatenate([np.einsum("ij,ij->i", rows[i[step]], rows[j[step]]) for step in steps])
    across = n * products - sums[i] * sums[j]
    p, q = t.as_integer_ratio()
    near = across.astype(object) ** 2 * q**2 >= p**2 * spread[i].astype(object) * spread[j]
    near = np.asarray(near, bool) & (across > 0)
    i, j, across = i[near], j[near], across[near]
    return i << 32 | j, across / np.sqrt(spread[i].astype(np.float64) * spread[j])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "count", "pairs"),
    [
        (notmnist, 4_681, 1_667),
        pytest.param(all_notmnist, 18_724, 28_420, marks=pytest.mark.stress),
        (mnist, 10_000, 1_524),
    ],
    ids=["a fourth of notMNIST", "notMNIST", "MNIST"],
)
def test_cosine_finds_what_brute_force_finds(images: Callable[[], Pixels], count: int, pairs: int) -> None:
    """254 of all notMNIST are constant: as pairs of one another they would be 32,131 more."""
    pixels = images()
    assert len(pixels) == count
    found, scores = matched("cosine:0.95", pixels)
    expected, exact = brute_force(pixels, "0.95")
    assert np.array_equal(found, expected)
    assert np.abs(scores - exact).max() < 1e-6
    assert len(found) == pairs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hamming:6", "hamming:3:dhash"])
def test_hamming_finds_what_brute_force_finds(name: str) -> None:
    pixels, rule = notmnist(), parse_rule(name)
    assert rule.comparison is not None
    words, bits = rule.index(pixels).signature.view(np.uint64), int(name.split(":")[1])
    found, scores = matched(name, pixels)
    expected = []
    for start in range(0, len(words), _STEP):
        i, j = np.nonzero(np.bitwise_count(words[start : start + _STEP, None] ^ words[start:]) <= bits)
        expected.append(((i << 32 | j) + (start << 32 | start))[i < j])
    assert np.array_equal(found, np.concatenate(expected))
    apart = np.bitwise_count(words[found >> 32] ^ words[found & 2**32 - 1])
    assert np.array_equal(scores, 1 - apart.astype(np.float32) / 64)
    assert len(found) > 100
