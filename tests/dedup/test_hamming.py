"""The Hamming rule: hashes by their laws and golden values, the join against brute force."""

import hashlib
import io
from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from making import encoded
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.dedup import phash
from pipeline.dedup.joins import bit_tables, bits
from pipeline.dedup.joins.bits import Block, near_words
from pipeline.dedup.phash import dct_hashes, gradient_hashes, gray
from pipeline.dedup.rules.hamming import rule

Words = NDArray[np.uint64]
Pixels = NDArray[np.uint8]
Pairs = list[tuple[int, int, int]]
HASHES = [dct_hashes, gradient_hashes]
SHARED = st.sampled_from([None, 0, 1, 2, 3])


@st.composite
def words(draw: st.DrawFn) -> Words:
    """A few centres, and words that differ from them in some bits or none: near pairs and repeats are common."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    special = np.array([0, 2**64 - 1, 2**63, 1], np.uint64)
    centres = np.concatenate([special, rng.integers(0, 2**64, draw(st.integers(0, 3)), np.uint64)])
    out = rng.choice(centres, draw(st.integers(0, 60)))
    for _ in range(draw(st.integers(0, 14))):
        flips = np.uint64(1) << rng.integers(0, 64, len(out), np.uint64)
        out = np.where(rng.random(len(out)) < 0.5, out ^ flips, out)
    return out


def brute_force(left: Words, right: Words | None, distance: int) -> Pairs:
    apart = np.bitwise_count(left[:, None] ^ (left if right is None else right))
    near = apart <= distance
    i, j = np.nonzero(np.triu(near, 1) if right is None else near)
    return list(zip(i.tolist(), j.tolist(), apart[i, j].tolist(), strict=True))


def pairs(blocks: Iterator[Block]) -> Pairs:
    return sorted(row for block in blocks for row in zip(*(part.tolist() for part in block), strict=True))


@given(words(), st.integers(0, 12), SHARED)
def test_a_join_with_itself_is_brute_force(left: Words, distance: int, shared: int | None) -> None:
    assert pairs(near_words(left, None, distance, shared=shared)) == brute_force(left, None, distance)


@given(words(), words(), st.integers(0, 12), SHARED)
def test_a_join_of_two_is_brute_force(left: Words, right: Words, distance: int, shared: int | None) -> None:
    right = np.concatenate([right, left[: len(right) // 2]])
    assert pairs(near_words(left, right, distance, shared=shared)) == brute_force(left, right, distance)


@given(words(), st.integers(0, 12), SHARED, st.sampled_from([1, 3, 16]), st.sampled_from([1, 7, 64]))
def test_however_the_work_is_cut(left: Words, distance: int, shared: int | None, cells: int, candidates: int) -> None:
    cut = {"_CELLS": cells, "_CANDIDATES": candidates, "_COLUMNS": 2}
    with patch.multiple(bit_tables, **cut), patch.multiple(bits, _BLOCK=5, _SAMPLE=7):
        assert pairs(near_words(left, None, distance, shared=shared)) == brute_force(left, None, distance)
        assert pairs(near_words(left, left[::2], distance, shared=shared)) == brute_force(left, left[::2], distance)
        assert all(0 <= len(i) <= 5 for i, _, _ in near_words(left, None, distance, shared=shared))


@given(words(), st.integers(0, 12), st.randoms(use_true_random=False))
def test_the_order_of_the_words_does_not_matter(left: Words, distance: int, random: object) -> None:
    order = np.random.default_rng(len(left)).permutation(len(left))
    back = sorted(
        (*sorted((int(order[i]), int(order[j]))), d) for i, j, d in pairs(near_words(left[order], None, distance))
    )
    assert back == pairs(near_words(left, None, distance))


def test_many_words_and_large_buckets() -> None:
    """Words enough for full blocks and all kinds of jobs: half of them share most of their bits."""
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 2**64, (4, 2500), np.uint64)
    skewed = np.concatenate([noise[0], noise[0] & noise[1] & noise[2] & noise[3], noise[0][:100]])
    counts = {0: 0, 3: 0, 6: 0}
    apart = np.bitwise_count(skewed[:, None] ^ skewed[None, :])
    for distance in counts:
        expected = np.bincount(apart[np.triu(apart <= distance, 1)], minlength=7)
        for shared in (None, 0, 1, 2, 3):
            found = list(near_words(skewed, None, distance, shared=shared))
            i, j, d = (np.concatenate(part) for part in zip(*found, strict=True))
            assert (i < j).all()
            assert len(np.unique(i * len(skewed) + j)) == len(i)
            assert np.array_equal(apart[i, j], d)
            assert np.array_equal(np.bincount(d, minlength=7), expected)


def test_blocks_come_in_the_same_order_with_any_number_of_threads() -> None:
    rng = np.random.default_rng(3)
    some = rng.integers(0, 2**64, 300, np.uint64)[rng.integers(0, 300, 3000)] ^ np.uint64(1) << rng.integers(
        0, 64, 3000, np.uint64
    )
    runs = []
    for threads in (1, 4, 4):
        with patch.object(bits, "_threads", lambda threads=threads: threads):
            runs.append([np.concatenate(part) for part in zip(*near_words(some, None, 6, shared=2), strict=True)])
    for run in runs[1:]:
        assert all(np.array_equal(part, first) for part, first in zip(run, runs[0], strict=True))


def test_a_join_can_be_left_early() -> None:
    some = np.random.default_rng(3).integers(0, 2**20, 3000, np.uint64)
    i, _, _ = next(near_words(some, None, 6, shared=1))
    assert len(i)


def test_types_and_empty_inputs() -> None:
    none, one = np.empty(0, np.uint64), np.zeros(1, np.uint64)
    for left, right in [(none, None), (one, None), (none, one), (one, none), (none, none)]:
        assert pairs(near_words(left, right, 6)) == []
    i, j, d = next(near_words(one, one, 6))
    assert (i.dtype, j.dtype, d.dtype) == (np.int64, np.int64, np.uint8)


@pytest.mark.parametrize(("distance", "shared"), [(-1, None), (33, None), (6, 4), (6, -1)])
def test_what_cannot_be_joined(distance: int, shared: int | None) -> None:
    with pytest.raises(ValueError, match="0 to 3"):
        near_words(np.zeros(1, np.uint64), None, distance, shared=shared)


# Hashes.


def glyph(text: str, size: int = 112, shift: int = 0) -> Pixels:
    """Draw something like a letter: (size, size) uint8."""
    image = Image.new("L", (112, 112), 10)
    ImageDraw.Draw(image).text((18 + shift, -6), text, fill=240, font_size=100)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


def hashed(*pictures: Pixels) -> NDArray[np.uint64]:
    """Both hashes of each picture, of any sizes: (n, 2)."""
    ready = [picture.reshape(1, *picture.shape[:2], -1) for picture in pictures]
    return np.stack([np.concatenate([way(one) for way in HASHES]) for one in ready])


def apart(one: Pixels, other: Pixels) -> list[int]:
    a, b = hashed(one, other)
    return list(np.bitwise_count(a ^ b).tolist())


BATCHES = st.tuples(st.integers(0, 9), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 3, 4])).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.integers(0, 255))
)


@given(BATCHES, st.integers(1, 5000))
def test_a_hash_does_not_depend_on_the_batch(pixels: Pixels, cached: int) -> None:
    for way in HASHES:
        whole = way(pixels)
        assert (whole.shape, whole.dtype) == ((len(pixels),), np.dtype(np.uint64))
        assert [way(pixels[k : k + 1])[0] for k in range(len(pixels))] == whole.tolist()
        with patch.object(phash, "_CACHED", cached):
            assert np.array_equal(way(pixels), whole)
        assert np.array_equal(way(np.asfortranarray(pixels)), whole)


def by_definition(picture: Pixels) -> tuple[int, int]:
    """Both hashes, with whole numbers of Python's and no matrices but the project's basis."""
    height, width = picture.shape

    def resized(rows: int, columns: int) -> NDArray[np.object_]:
        fine = picture.astype(object).repeat(rows, axis=0).repeat(columns, axis=1)
        return np.asarray(fine.reshape(rows, height, columns, width).sum(axis=(1, 3)))

    basis = phash._basis().astype(object)  # noqa: SLF001 - held by the test below
    found = basis.dot(resized(32, 32)).dot(basis.T).ravel()
    small = resized(8, 9)
    median = sorted(found[1:])[31]
    rising = (small[:, 1:] > small[:, :-1]).ravel()
    return int("".join("01"[int(value > median)] for value in found), 2), int(
        "".join("01"[int(bit)] for bit in rising), 2
    )


@settings(max_examples=30)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=50)))
def test_a_hash_is_its_definition(picture: Pixels) -> None:
    assert hashed(picture).tolist() == [list(by_definition(picture))]


def test_the_basis_is_the_orthonormal_dct_and_the_same_everywhere() -> None:
    basis = phash._basis()  # noqa: SLF001 - a golden value: old lakes hold hashes made with it
    assert np.abs(basis @ basis.T / 2**22 - np.eye(8)).max() < 2e-3
    assert basis.sum(axis=1).tolist() == [11584, 0, 0, 0, 0, 0, 0, 0]
    assert (
        hashlib.sha256(basis.astype("<i8").tobytes()).hexdigest()
        == "6e0a5842a73b6a61a4abfa23ec5e46bb7a5ab92a57364f22ce042028036bbcc7"
    )


def test_golden_hashes() -> None:
    """A promise to old lakes: raise KEYS_VERSION where these change."""
    small = (np.outer(np.arange(28), np.arange(28)) % 256).astype(np.uint8)
    wave = (np.outer(np.arange(200), np.arange(300)) // 7 % 256).astype(np.uint8)
    colours = np.stack([wave, wave[::-1], wave // 2], axis=2)
    assert [[f"{word:016x}" for word in row] for row in hashed(small, wave, wave[:5, :7], colours).tolist()] == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (28, 28), (32, 32), (300, 200), (2000, 3)])
def test_any_size_has_a_hash_and_constant_pictures_have_known_ones(shape: tuple[int, int]) -> None:
    for value, expected in [(0, [0, 0]), (1, [2**63, 0]), (77, [2**63, 0]), (255, [2**63, 0])]:
        assert hashed(np.full(shape, value, np.uint8)).tolist() == [expected]


def test_sizes_that_have_no_hash() -> None:
    for way in HASHES:
        with pytest.raises(ValueError, match="no pixels"):
            way(np.zeros((2, 0, 5, 1), np.uint8))
    with pytest.raises(ValueError, match="too many pixels"):
        dct_hashes(np.broadcast_to(np.zeros(1, np.uint8), (1, 2**15, 2**15, 1)))


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.sampled_from([3, 4])))
)
def test_gray_is_pillows(pixels: Pixels) -> None:
    modes = {3: "RGB", 4: "RGBA"}
    for one, expected in zip(pixels, gray(pixels), strict=True):
        assert np.array_equal(
            np.asarray(Image.frombytes(modes[one.shape[2]], one.shape[1::-1], one.tobytes()).convert("L")), expected
        )


@given(BATCHES)
def test_equal_channels_hash_as_gray(pixels: Pixels) -> None:
    for way in HASHES:
        assert np.array_equal(way(np.repeat(pixels[..., :1], 3, axis=3)), way(pixels[..., :1]))


@pytest.mark.parametrize("letter", "ABEGRS2&")
def test_small_changes_move_few_bits(letter: str) -> None:
    picture = glyph(letter)
    darker = (picture * 0.8 + 10).astype(np.uint8)
    saved = np.asarray(Image.open(io.BytesIO(encoded(picture, "JPEG", quality=60))))
    assert max(apart(picture, darker)[:1] + apart(picture, saved)[:1]) <= 6
    for size in (56, 200):
        assert apart(picture, glyph(letter, size))[0] <= 4
    assert apart(picture, glyph(letter, 56))[1] <= 10


def test_other_letters_are_far() -> None:
    dct = hashed(*(glyph(letter) for letter in "ABEGRS2&X"))[:, 0]
    distances = np.bitwise_count(dct[:, None] ^ dct)[np.triu_indices(len(dct), 1)]
    assert distances.min() > 6
    assert np.median(distances) > 20


# The rule.


@pytest.mark.parametrize(
    ("parameter", "distance", "way"),
    [("0", 0, dct_hashes), ("6", 6, dct_hashes), ("12", 12, dct_hashes), ("6:dhash", 6, gradient_hashes)],
)
def test_the_rule_knows_its_distance_and_hash(parameter: str, distance: int, way: object) -> None:
    assert (rule(parameter).distance, rule(parameter).hashes) == (distance, way)


@pytest.mark.parametrize(
    "parameter", [None, "", "13", "-1", "06", "6.5", "x", "٣", "6:", "6:ahash", "6:dhash:", ":dhash", "dhash", "6 "]
)
def test_other_parameters_are_errors_that_help(parameter: str | None) -> None:
    with pytest.raises(ValueError, match="0 to 12.*write hamming:6 or hamming:6:dhash"):
        rule(parameter)
