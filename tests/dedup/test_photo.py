"""Rule photo: exact thumbnails, and descriptors and verification that do not depend on the rest of the batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.dedup.photo.descriptor import COMPONENTS, Basis, Projection, describe, fit, make_projection
from pipeline.dedup.photo.outline import UNIT, orient, outline_weights, outlines
from pipeline.dedup.photo.thumbnails import ORIENTATIONS, SIDE, Planes, pack, thumbnails, turn, undo, unpack
from pipeline.dedup.photo.verify_pair import shared_structure
from pipeline.dedup.photo.views import PLAIN, View, values, view_matrix, whole_weights
from pipeline.dedup.rules import parse_rule, photo
from pipeline.dedup.rules.photo import Photo
from pipeline.errors import RecipeError

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

SEEDS = st.integers(0, 2**32 - 1)


def textured(seed: int, n: int, side: int = SIDE) -> Pixels:
    """Sums of random smooth fields and an edge: (n, side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = [rng.normal(size=(n, cells, cells, 3)) * cells**-0.7 for cells in (2, 4, 8, 16)]
    fields = sum(part.repeat(side // part.shape[1], 1).repeat(side // part.shape[1], 2) for part in coarse)
    along, place = rng.normal(size=(2, n, 1, 1)), np.arange(side) - side / 2
    edge = along[0] * place[:, None] + along[1] * place > rng.normal(size=(n, 1, 1)) * 4
    return np.asarray(np.clip(128 + 50 * (fields + edge[..., None]), 0, 255), np.uint8)


def packed(pictures: Pixels) -> Planes:
    """Thumbnails as the index holds them."""
    return unpack(pack(pictures))


BASIS = fit(packed(textured(99, 400)))
VIEWS = (
    PLAIN,
    View(1.25, -1.25),
    View(1.8, -1.8, 0.87),
    View(size=0.83, degrees=5.0),
    *(View(orientation=way) for way in range(1, 8)),
)
PROJECTION, OUTLINE_WEIGHTS = make_projection(BASIS, VIEWS), outline_weights(VIEWS)


def described(pictures: Planes, made: Projection = PROJECTION) -> Floats:
    return describe(values(pictures), pictures.constant(), made)


def outlined(pictures: Planes) -> list[Floats]:
    """Long outlines, then short ones of all views."""
    return outlines(values(pictures), pictures.constant(), OUTLINE_WEIGHTS)


def area_means(picture: Pixels) -> NDArray[np.float64]:
    """Resize one channel by area to (32, 32), by cutting every pixel into 32 x 32 parts."""
    height, width = picture.shape
    parts = picture.repeat(SIDE, axis=0).repeat(SIDE, axis=1)
    means: NDArray[np.float64] = parts.reshape(SIDE, height, SIDE, width).mean(axis=(1, 3), dtype=np.float64)
    return means


@settings(max_examples=25)
@given(SEEDS, st.integers(1, 70), st.integers(1, 50), st.sampled_from([1, 3]), st.sampled_from([2, 4, 256]))
def test_a_thumbnail_is_the_mean_over_areas_rounded_half_up(
    seed: int, h: int, w: int, channels: int, most: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, most, (2, h, w, channels), dtype=np.uint8)
    made = thumbnails(pixels)
    assert made.dtype == np.uint8
    assert made.shape == (2, SIDE, SIDE, 3)
    for picture, seen in zip(pixels, made, strict=True):
        for channel in range(3):
            wanted = np.floor(area_means(picture[:, :, min(channel, channels - 1)]) + 0.5)
            assert np.array_equal(seen[:, :, channel], wanted)


def test_halves_are_rounded_up_and_white_stays_white() -> None:
    columns = np.tile(np.array([[0, 1], [254, 255]], np.uint8), (SIDE, SIDE))
    made = thumbnails(columns[None, :, :, None])
    assert (made == 128).all()
    assert (thumbnails(np.tile(np.array([1, 2], np.uint8), (1, SIDE, SIDE))[..., None]) == 2).all()
    assert (thumbnails(np.full((1, 50, 70, 3), 255, np.uint8)) == 255).all()


@settings(max_examples=15)
@given(SEEDS, st.integers(1, 70), st.integers(1, 50), st.integers(0, 8))
def test_one_thumbnail_equals_that_of_a_batch(seed: int, h: int, w: int, n: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, h, w, 3), dtype=np.uint8)
    many = thumbnails(pixels)
    assert len(many) == n
    for k in range(n):
        assert np.array_equal(thumbnails(pixels[k : k + 1])[0], many[k])


def test_a_batch_of_several_pieces_equals_its_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 40, 41, 3), dtype=np.uint8)
    whole = thumbnails(pixels)
    monkeypatch.setattr("pipeline.dedup.photo.thumbnails._BLOCK_PIXELS", 2 * 40 * 41)
    assert np.array_equal(thumbnails(pixels), whole)


def test_a_picture_of_the_thumbnails_size_stays_as_it_is_and_gray_is_colour() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)
    assert np.array_equal(thumbnails(colour), colour)
    turned = colour[:, :, ::-1]
    assert thumbnails(turned).flags.c_contiguous
    gray = colour[..., :1]
    assert np.array_equal(thumbnails(gray), gray.repeat(3, axis=3))
    assert np.array_equal(thumbnails(gray), thumbnails(gray.repeat(3, axis=3)))


@pytest.mark.parametrize("n", [2, 127, 513])
def test_what_is_compared_does_not_depend_on_the_others_or_on_their_order(n: int) -> None:
    pictures = packed(textured(n, n))
    rng = np.random.default_rng(n)
    many, outlines_of_many, order = described(pictures), outlined(pictures), rng.permutation(n)
    assert many.shape == (n, len(VIEWS), COMPONENTS)
    assert many.dtype == np.float32
    assert [some.shape for some in outlines_of_many] == [(n, 45)] + [(n, 25)] * len(VIEWS)
    for part in (order, slice(n - 1, n), slice(0, 1)):
        assert np.array_equal(described(pictures.take(part)), many[part])
        for some, all_of_them in zip(outlined(pictures.take(part)), outlines_of_many, strict=True):
            assert np.array_equal(some, all_of_them[part])


@pytest.mark.parametrize("least", [0, 255])
def test_sums_of_the_largest_values_are_exact(least: int) -> None:
    """Worst case: half of the pixels black and half white, in the most saturated colours, and weights that fit them."""
    rng = np.random.default_rng(1)
    gray = np.asarray(rng.permuted(np.repeat([0, 255], 512)), np.uint8).reshape(1, 32, 32)
    gray[0, ::2, ::2] = least
    rows = values(Planes(gray, np.asarray(rng.choice([-256, 254], (1, 2, 8, 8)), np.int16)))
    assert np.linalg.norm(rows.astype(np.float64)) <= 8660
    weights = np.stack([rows[0], -rows[0], np.sign(rows[0]), np.ones(384)], axis=1).astype(np.float64)
    whole, factors = whole_weights(weights)
    assert np.linalg.norm(whole.astype(np.float64), axis=0).max() * 8660 < 2**24
    assert np.array_equal(rows @ whole, rows.astype(np.float64) @ whole.astype(np.float64))
    assert np.abs(whole * factors / weights - 1).max() < 0.02


def test_descriptors_are_of_length_one_and_those_of_constants_zero() -> None:
    pictures = textured(1, 9)
    pictures[2], pictures[5], pictures[7] = 0, 255, np.array([10, 200, 30])
    length = np.linalg.norm(described(packed(pictures)).astype(np.float64), axis=2)
    constant = np.isin(np.arange(9), [2, 5, 7])
    assert (length[constant] == 0).all()
    assert np.abs(length[~constant] - 1).max() < 1e-6


def near_constants() -> Pixels:
    """Pictures with next to no contrast: one pixel, one channel or a little noise off, in any light."""
    rng = np.random.default_rng(2)
    made = rng.choice([0, 1, 127, 254, 255], (60, 1, 1, 1)).repeat(SIDE, 1).repeat(SIDE, 2).repeat(3, 3)
    made[np.arange(20), rng.integers(0, SIDE, 20), rng.integers(0, SIDE, 20), rng.integers(0, 3, 20)] ^= 1
    made[20:40] ^= rng.integers(0, 2, (20, SIDE, SIDE, 3))
    made[40:] ^= (np.add.outer(np.arange(SIDE), np.arange(SIDE)) % 2)[None, :, :, None]
    return np.asarray(made, np.uint8)


@pytest.mark.parametrize(
    "basis", [BASIS, fit(packed(near_constants())), fit(packed(np.zeros((3, SIDE, SIDE, 3), np.uint8)))]
)
def test_low_contrast_gives_no_nan(basis: Basis) -> None:
    pictures = packed(near_constants())
    made = described(pictures, make_projection(basis, VIEWS))
    length = np.linalg.norm(made.astype(np.float64), axis=2)
    assert np.isfinite(made).all()
    assert ((length == 0) | (np.abs(length - 1) < 1e-6)).all()
    assert all(np.isfinite(some).all() for some in outlined(pictures))
    gray = pictures.gray
    start = np.zeros((len(gray), 4), np.float32)
    seen = shared_structure(gray, gray[::-1].copy(), start)
    assert ((seen >= 0) & (seen <= 1)).all()


@pytest.mark.parametrize("n", [1, 5, 100])
def test_a_basis_of_few_pictures_works_and_reads_as_it_was_written(n: int) -> None:
    pictures = packed(textured(3, n + 4))
    basis = fit(pictures.take(slice(0, n)))
    again = Basis.from_bytes(basis.to_bytes())
    assert len(basis.to_bytes()) == 4 * 768 * 97
    assert again.mean.shape == (768,)
    assert again.components.shape == (768, COMPONENTS)
    for one, other in zip(basis, again, strict=True):
        assert np.array_equal(one, other)
        assert other.dtype == np.float32
    made = described(pictures, make_projection(again, VIEWS))
    assert np.array_equal(made, described(pictures, make_projection(basis, VIEWS)))
    assert np.isfinite(made).all()


def test_components_have_variance_one_and_are_uncorrelated() -> None:
    sample = packed(textured(4, 1500))
    gray, (red, blue) = sample.gray.astype(np.float64), sample.colour.repeat(4, 2).repeat(4, 3).swapaxes(0, 1)
    green = -(0.299 * red + 0.114 * blue) / 0.587
    x = np.stack([gray + red, gray + green, gray + blue], axis=3)
    rows = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    rows -= rows.mean(axis=(1, 2), keepdims=True)
    rows = rows.reshape(len(rows), -1)
    rows /= np.sqrt((rows**2).sum(axis=1, keepdims=True) + 25)
    basis = fit(sample)
    made = (rows - basis.mean) @ basis.components.astype(np.float64)
    spread = made.T @ made / len(made)
    assert np.abs(spread - np.diag(np.diag(spread))).max() < 1e-3
    assert np.abs(np.diag(spread)[:20] - 1).max() < 1e-3
    assert np.diag(spread).max() < 1 + 1e-3


@settings(max_examples=5)
@given(SEEDS)
def test_verification_does_not_depend_on_the_other_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = packed(textured(seed, 40)).gray, packed(textured(seed + 1, 40)).gray
    right[::2] = np.roll(left[::2], 1, axis=2)
    start = rng.normal(size=(40, 4)).astype(np.float32) * np.array([1, 1, 0.1, 0.1], np.float32)
    many, order = shared_structure(left, right, start), rng.permutation(40)
    assert np.array_equal(shared_structure(left[order], right[order], start[order]), many[order])
    for k in range(0, 40, 7):
        part = slice(k, k + 1)
        assert np.array_equal(shared_structure(left[part], right[part], start[part]), many[part])
    assert ((many >= 0) & (many <= 1)).all()


def test_the_index_holds_thumbnails_and_equal_ones_share_key_and_signature() -> None:
    rule = parse_rule("photo:0.4").comparison
    assert isinstance(rule, Photo)
    pictures = textured(5, 6, 64)
    pictures[4] = pictures[1]
    entries = rule.index(pictures)
    assert np.array_equal(entries.vector, pack(thumbnails(pictures)))
    assert entries.vector.shape == (6, 898)
    assert len({*zip(entries.key.tolist(), entries.signature.tolist(), strict=True)}) == 5
    assert (entries.key[4], entries.signature[4]) == (entries.key[1], entries.signature[1])


@settings(max_examples=20)
@given(SEEDS, st.integers(0, 5), st.sampled_from([2, 9, 256]))
def test_unpacking_is_off_by_half_a_level_of_the_contrast_at_most(seed: int, n: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    pictures = np.asarray(rng.integers(0, most, (n, SIDE, SIDE, 3)) + rng.integers(0, 257 - most), np.uint8)
    luma = (pictures.astype(int) @ [19595, 38470, 7471] + 2**15) >> 16
    found = packed(pictures)
    span = np.ptp(luma, axis=(1, 2), keepdims=True)
    assert (np.abs(found.gray.astype(int) - luma) <= span / 126 + 0.5).all()
    for plane, channel in enumerate((0, 2)):
        cells = (pictures[..., channel].astype(int) - luma).reshape(n, 8, 4, 8, 4).mean(axis=(2, 4))
        assert (np.abs(found.colour[:, plane] - cells) <= 1).all()


def test_the_most_and_the_least_colour_are_kept() -> None:
    colours = np.array([[255, 0, 0], [0, 0, 255], [0, 255, 255], [255, 255, 0], [0, 255, 0], [255, 0, 255]], np.uint8)
    found = packed(colours[:, None, None].repeat(SIDE, 1).repeat(SIDE, 2))
    assert found.constant().all()
    for plane, channel in enumerate((0, 2)):
        wanted = colours[:, channel].astype(int) - found.gray[:, 0, 0]
        assert (np.abs(found.colour[:, plane, 0, 0] - wanted) <= 1).all()


def test_an_outline_in_another_orientation_is_that_of_the_turned_picture() -> None:
    pictures = packed(textured(7, 12))
    long, short, *_ = outlined(pictures)
    assert np.abs(np.linalg.norm(long, axis=1) / UNIT - 1).max() < 0.01
    assert np.abs(np.linalg.norm(short, axis=1) / UNIT - 1).max() < 0.01
    for orientation in range(ORIENTATIONS):
        turned = outlined(pictures.turn(orientation))[1]
        assert np.abs(orient(short, orientation) - turned).max() <= 2
        assert np.array_equal(orient(orient(short, orientation), undo(orientation)), short)
        assert np.array_equal(turn(turn(pictures.gray, orientation), undo(orientation)), pictures.gray)
    assert np.array_equal(turn(pictures.gray, 5), np.rot90(pictures.gray, -1, (1, 2)))
    assert np.array_equal(turn(pictures.gray, 3), np.rot90(pictures.gray, 2, (1, 2)))


def test_a_view_of_an_orientation_is_the_turned_picture_itself() -> None:
    pictures = packed(textured(8, 20))
    made = described(pictures)
    for orientation in range(1, ORIENTATIONS):
        turned = described(pictures.turn(orientation))[:, 0]
        assert np.abs(made[:, VIEWS.index(View(orientation=orientation))] - turned).max() < 0.01


@pytest.mark.parametrize("view", [View(2.0, -4.0), View(size=0.5), View(degrees=90.0), View(2.0, 2.0, 0.75)])
def test_a_view_is_the_picture_moved(view: View) -> None:
    """Of a plane that rises evenly, away from the edge, where the edge value is repeated."""
    down, across = np.mgrid[:16, :16] * 2.0 - 15
    angle = np.radians(view.degrees)
    y, x = view.size * down + view.down, view.size * across + view.across
    y, x = np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x
    seen = (view_matrix(view) @ (3 * down + across).reshape(-1)).reshape(16, 16)
    inside = np.maximum(np.abs(x), np.abs(y)) < 12
    assert inside.sum() > 60
    assert np.abs(seen - (3 * y + x))[inside].max() < 1e-4


def test_few_pictures_are_compared_as_many_are(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = Photo(0.05).using(BASIS.to_bytes())
    one = textured(1, 6)
    other = np.concatenate([textured(2, 2000), one[:2, :, ::-1], np.rot90(one, axes=(1, 2)), one])
    left, right = ready.index(one), ready.index(np.ascontiguousarray(other))
    found = []
    for few in (0, 64):
        monkeypatch.setattr(photo, "_FEW", few)
        parts = list(zip(*ready.candidates(left, right), strict=True))
        found.append([np.concatenate(part) for part in parts])
    assert len(found[0][0]) >= 14
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
    assert not list(ready.candidates(ready.index(np.zeros((1, SIDE, SIDE, 3), np.uint8)), right))


def test_turns_are_left_out_of_upright_rules() -> None:
    assert isinstance(found := parse_rule("photo:0.4:upright").comparison, Photo)
    assert (found.least, found.turns) == (0.4, False)
    for name in ("photo:0.4:", "photo:0.4:turned", "photo:0.4:upright:x"):
        with pytest.raises(RecipeError, match="after the score it takes upright only; write photo:0.5"):
            parse_rule(name)


@pytest.mark.parametrize("name", ["photo", "photo:", "photo:0", "photo:-1", "photo:1.01", "photo:nan", "photo:near"])
def test_an_invalid_least_score_is_an_error(name: str) -> None:
    with pytest.raises(RecipeError, match="it takes the minimum score, above 0 and up to 1; write photo:0.5"):
        parse_rule(name)
