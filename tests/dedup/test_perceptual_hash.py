"""Perceptual hashes: properties, definitions in plain Python, golden values, and distances of similar images."""

import hashlib
import io
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from making import encoded
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.dedup import perceptual_hash as phash
from pipeline.dedup.perceptual_hash import dct_hashes, gradient_hashes, gray

Pixels = NDArray[np.uint8]
HASHES = [dct_hashes, gradient_hashes]


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
        with patch.object(phash, "_BLOCK_BYTES", cached):
            assert np.array_equal(way(pixels), whole)
        assert np.array_equal(way(np.asfortranarray(pixels)), whole)


def by_definition(picture: Pixels) -> tuple[int, int]:
    """Both hashes, with whole numbers of Python's and no matrices but the project's basis."""
    height, width = picture.shape

    def resized(rows: int, columns: int) -> NDArray[np.object_]:
        fine = picture.astype(object).repeat(rows, axis=0).repeat(columns, axis=1)
        return np.asarray(fine.reshape(rows, height, columns, width).sum(axis=(1, 3)))

    basis = phash._dct_basis().astype(object)  # noqa: SLF001 - checked by the test below
    found = basis.dot(resized(32, 32)).dot(basis.T).ravel()
    small = resized(8, 9)
    median = sorted(found[1:])[31]
    rising = (small[:, 1:] > small[:, :-1]).ravel()
    return int("".join("01"[int(value > median)] for value in found), 2), int(
        "".join("01"[int(bit)] for bit in rising), 2
    )


@settings(max_examples=30)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=50)))
def test_a_hash_equals_its_definition(picture: Pixels) -> None:
    assert hashed(picture).tolist() == [list(by_definition(picture))]


def test_the_basis_is_the_orthonormal_dct_and_the_same_everywhere() -> None:
    basis = phash._dct_basis()  # noqa: SLF001 - a golden value: old lakes hold hashes made with it
    assert np.abs(basis @ basis.T / 2**22 - np.eye(8)).max() < 2e-3
    assert basis.sum(axis=1).tolist() == [11584, 0, 0, 0, 0, 0, 0, 0]
    assert (
        hashlib.sha256(basis.astype("<i8").tobytes()).hexdigest()
        == "6e0a5842a73b6a61a4abfa23ec5e46bb7a5ab92a57364f22ce042028036bbcc7"
    )


def test_golden_hashes() -> None:
    """Existing lakes contain these hashes: raise KEYS_VERSION if they change."""
    small = (np.outer(np.arange(28), np.arange(28)) % 256).astype(np.uint8)
    wave = (np.outer(np.arange(200), np.arange(300)) // 7 % 256).astype(np.uint8)
    colours = np.stack([wave, wave[::-1], wave // 2], axis=2)
    found = hashed(small, wave, wave[:5, :7], colours).tolist()
    assert [[f"{word:016x}" for word in row] for row in found] == [
        ["823c736c5b56ad2a", "fffffff8f3e6ecc9"],
        ["8000070f3f3f3f3f", "d5aadaa5ed98f198"],
        ["bb508fb5b3434c4a", "0000000c3e367f6f"],
        ["80ff00fd0ff01fe0", "ddaadaada5daaad5"],
    ]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (28, 28), (32, 32), (300, 200), (2000, 3)])
def test_any_size_has_a_hash_and_constant_pictures_have_known_ones(shape: tuple[int, int]) -> None:
    for value, expected in [(0, [0, 0]), (1, [2**63, 0]), (77, [2**63, 0]), (255, [2**63, 0])]:
        assert hashed(np.full(shape, value, np.uint8)).tolist() == [expected]


def test_sizes_without_a_hash_are_errors() -> None:
    for way in HASHES:
        with pytest.raises(ValueError, match="without pixels"):
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
