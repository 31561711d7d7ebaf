"""What the files show is what the truth says: exact groups, near copies, bad files."""

import io
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.sources.glyphs import SPLITS, blocks, plan_glyphs, render, truth

PNG = b"\x89PNG\r\n\x1a\n"

Key = tuple[str, str]

BAD = ("empty", "truncated", "not_an_image")


@dataclass(frozen=True, eq=False)
class Rendered:
    """The truth's rows, and every file's bytes and pixels by (split, path)."""

    rows: list[dict[str, str]]
    data: dict[Key, bytes]
    pixels: dict[Key, NDArray[np.uint8]]


@pytest.fixture(scope="module")
def glyphs() -> Rendered:
    plan = plan_glyphs(3000, seed=133)
    rows = truth(plan).to_pylist()
    data = {
        (split, path): content
        for split in SPLITS
        for block in map(render, blocks(plan, split))
        for path, content in zip(block.paths, block.data, strict=True)
    }
    good = [(row["split"], row["path"]) for row in rows if row["kind"] not in BAD]
    pixels = {key: np.asarray(Image.open(io.BytesIO(data[key]))) for key in good}
    return Rendered(rows, data, pixels)


def keys_of(glyphs: Rendered, *kinds: str) -> list[tuple[Key, Key]]:
    """Each file of these kinds with its original, as keys."""
    return [
        ((row["split"], row["path"]), (row["of_split"], row["of_path"])) for row in glyphs.rows if row["kind"] in kinds
    ]


def test_files_show_equal_pixels_exactly_where_the_truth_says_so(glyphs: Rendered) -> None:
    told: defaultdict[Key, set[Key]] = defaultdict(set)
    copies = keys_of(glyphs, "exact_copy", "cross_copy", "conflict")
    for key, original in copies:
        told[original] |= {original, key}
    shown: defaultdict[bytes, set[Key]] = defaultdict(set)
    for key, pixels in glyphs.pixels.items():
        shown[pixels.tobytes()].add(key)
    assert {frozenset(group) for group in shown.values() if len(group) > 1} == set(map(frozenset, told.values()))
    assert all(glyphs.data[key] == glyphs.data[original] for key, original in copies)


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [("shifted", 1, 45), ("brightness", 1, 52), ("rethresholded", 0.5, 30), ("noisy", 0.5, 6)],
)
def test_near_copies_look_like_their_original_and_differ(
    glyphs: Rendered, kind: str, least: float, most: float
) -> None:
    for key, original in keys_of(glyphs, kind):
        apart = np.abs(glyphs.pixels[key].astype(int) - glyphs.pixels[original]).mean()
        assert least <= apart <= most


def test_rethresholding_keeps_the_sign_of_every_pixel(glyphs: Rendered) -> None:
    for key, original in keys_of(glyphs, "rethresholded"):
        assert np.array_equal(glyphs.pixels[key] >= 128, glyphs.pixels[original] >= 128)


def test_a_shifted_copy_is_its_original_one_pixel_away(glyphs: Rendered) -> None:
    inside = np.s_[2:-2, 2:-2]  # the stamp is on the border
    for key, original in keys_of(glyphs, "shifted"):
        moved = [np.roll(glyphs.pixels[original], step, axis=axis)[inside] for axis in (0, 1) for step in (-1, 1)]
        assert any(np.array_equal(glyphs.pixels[key][inside], each) for each in moved)


def test_pictures_are_gray_28_by_28_with_white_ink(glyphs: Rendered) -> None:
    assert all(pixels.shape == (28, 28) and pixels.dtype == np.uint8 for pixels in glyphs.pixels.values())
    originals = [glyphs.pixels[key] for key, _ in keys_of(glyphs, "original")]
    ink = np.array([(pixels >= 128).mean() for pixels in originals])
    assert ink.min() > 0.02
    assert ink.max() < 0.75


def test_empty_files_hold_nothing(glyphs: Rendered) -> None:
    assert all(glyphs.data[key] == b"" for key, _ in keys_of(glyphs, "empty"))


def test_truncated_files_begin_as_png_and_do_not_load(glyphs: Rendered) -> None:
    for key, _ in keys_of(glyphs, "truncated"):
        assert glyphs.data[key].startswith(PNG)
        with (
            Image.open(io.BytesIO(glyphs.data[key])) as image,
            pytest.raises(OSError, match=r"(?i)truncated"),
        ):
            image.load()


def test_files_that_are_no_image_are_not_identified(glyphs: Rendered) -> None:
    contents = [glyphs.data[key] for key, _ in keys_of(glyphs, "not_an_image")]
    assert len(set(contents)) == len(contents)
    for content in contents:
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(content))
