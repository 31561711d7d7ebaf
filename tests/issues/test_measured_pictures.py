"""Planted faults of each kind score high, and clean pictures, flat drawings and glyphs do not."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from photo_data import patterns
from PIL import Image, ImageDraw, ImageFilter

from pipeline.issues.measure import Measurements, gray, measure, reduced
from pipeline.issues.quality import find_quality_issues, score_of
from pipeline.recipe.issues import KINDS, QUALITY, IssuesPart

Pixels = NDArray[np.uint8]
OF_PIXELS = [kind for kind in QUALITY if not kind.startswith("odd")]


def photos(count: int = 36) -> Pixels:
    """Draw textures and mosaics with sharp edges: (n, 160, 160, 3)."""
    drawn = [np.asarray(picture) for number, picture in enumerate(patterns(5, count)) if number % 6 in (2, 3, 4)]
    return np.stack(drawn)


def glyphs(count: int = 20) -> Pixels:
    """Draw thick lines on white, as scanned letters have: (n, 28, 28, 1)."""
    chance = np.random.default_rng(2)
    drawn = []
    for _ in range(count):
        picture = Image.new("L", (28, 28), 255)
        ends = chance.integers(3, 25, (6, 2)).tolist()
        ImageDraw.Draw(picture).line([tuple(end) for end in ends], fill=0, width=3)
        drawn.append(np.asarray(picture))
    return np.stack(drawn)[..., None]


def scores(pixels: Pixels) -> pl.DataFrame:
    """Score pictures of one shape, which are of one class."""
    frame = pl.DataFrame(measure(pixels), schema=list(Measurements._fields), orient="row").with_columns(
        dataset=pl.lit("d"), label=pl.lit("a"), height=pixels.shape[1], width=pixels.shape[2], area=1
    )
    return frame.select(score_of(kind, KINDS["blank"].threshold).alias(kind) for kind in OF_PIXELS)


def listed(pixels: Pixels) -> dict[str, int]:
    """Count the pictures that each kind lists by default."""
    found = scores(pixels)
    counts = {kind: int((found[kind] >= KINDS[kind].threshold).sum()) for kind in OF_PIXELS}
    return {kind: count for kind, count in counts.items() if count}


def blurred(pixels: Pixels, radius: float) -> Pixels:
    by = ImageFilter.GaussianBlur(radius)
    made = [np.asarray(Image.fromarray(one.squeeze()).filter(by)) for one in pixels]
    return np.stack(made).reshape(pixels.shape)


def framed(pixels: Pixels) -> Pixels:
    made = pixels.copy()
    made[:, : pixels.shape[1] // 6] = 0
    made[:, -pixels.shape[1] // 6 :] = 3
    return made


FAULTS: dict[str, Callable[[Pixels], Pixels]] = {
    "blank": lambda pixels: np.full_like(pixels, 180),
    "dark": lambda pixels: (pixels * 0.15).astype(np.uint8),
    "bright": lambda pixels: (255 - (255 - pixels) * 0.15).astype(np.uint8),
    "low_contrast": lambda pixels: (110 + pixels * 0.1).astype(np.uint8),
    "blurry": lambda pixels: blurred(pixels, 2.5),
}


@pytest.mark.parametrize("make", [photos, glyphs])
def test_clean_pictures_have_no_issue(make: Callable[[], Pixels]) -> None:
    assert listed(make()) == {}


@pytest.mark.parametrize("make", [photos, glyphs])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_is_found_and_no_other(kind: str, make: Callable[[], Pixels]) -> None:
    pixels = FAULTS[kind](make())
    assert listed(pixels) == {kind: len(pixels)}


def test_a_blank_picture_with_noise_is_blank() -> None:
    noise = np.random.default_rng(0).normal(200, 0.8, (5, 64, 64, 1)).round().astype(np.uint8)
    assert listed(noise) == {"blank": 5}


@pytest.mark.parametrize(
    ("blank", "kinds"),
    [(0.9, {"blank"}), (0.995, {"bright", "low_contrast"}), (None, {"bright", "low_contrast"})],
)
def test_the_threshold_of_blank_decides_on_other_issues(blank: float | None, kinds: set[str]) -> None:
    measured = dict.fromkeys(Measurements._fields, 0.0) | {"low": 200.0, "high": 200.0, "uniform": 0.95}
    frame = pl.LazyFrame({"image_id": [b"a"], **measured})
    thresholds = {"bright": 0.75, "low_contrast": 0.8} | ({} if blank is None else {"blank": blank})
    assert set(find_quality_issues(frame, thresholds)["kind"]) == kinds


def test_a_smooth_picture_has_little_information_and_is_not_blurry() -> None:
    ramp = np.broadcast_to(np.linspace(40, 200, 256).astype(np.uint8)[None, :, None, None], (3, 256, 256, 1))
    assert listed(np.ascontiguousarray(ramp)) == {"low_information": 3}


def test_flat_drawings_are_not_blurry() -> None:
    picture = Image.new("RGB", (120, 90), (250, 240, 200))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((20, 20, 70, 60), fill=(40, 90, 200))
    draw.ellipse((60, 30, 110, 80), fill=(200, 40, 60))
    found = scores(np.asarray(picture)[None])
    assert found["blurry"][0] < 0.2
    assert listed(np.asarray(picture)[None]) == {}


def test_a_border_counts_above_what_is_usual() -> None:
    pixels = photos()
    some = np.concatenate([pixels, framed(pixels[:2])])
    assert listed(some) == {"border": 2}
    # If all have it, as digits on black do, it says nothing about a picture.
    assert listed(framed(pixels)) == {}


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2), (5, 5), (9, 700), (1100, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_shape_has_finite_measurements(shape: tuple[int, int], channels: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, *shape, channels), dtype=np.uint8)
    found = measure(pixels)
    assert found.shape == (3, len(Measurements._fields))
    assert np.isfinite(found).all()
    assert np.isfinite(scores(pixels).to_numpy()).all()


def test_measurements_do_not_depend_on_the_batch() -> None:
    pixels = photos()
    whole = measure(pixels)
    assert np.array_equal(whole, np.concatenate([measure(pixels[at : at + 1]) for at in range(len(pixels))]))


def test_measurements_equal_plain_ones() -> None:
    picture = np.random.default_rng(3).integers(0, 200, (1, 40, 30, 1), dtype=np.uint8)
    plain = picture[0, :, :, 0].astype(int)
    near, far = (
        np.concatenate([abs(plain[d:] - plain[:-d]).ravel(), abs(plain[:, d:] - plain[:, :-d]).ravel()]) for d in (1, 4)
    )
    low, middle, high = (np.quantile(plain, part, method="inverted_cdf") for part in (0.01, 0.5, 0.99))
    edge = max(8, np.ceil((high - low) / 8))
    expected = [
        low,
        high,
        (abs(plain - middle) <= 3).mean(),
        np.quantile(near, 0.995, method="inverted_cdf"),
        np.quantile(far, 0.995, method="inverted_cdf"),
        (far >= edge).mean(),
        0,
    ]
    assert measure(picture)[0] == pytest.approx(expected)


def test_gray_and_reduced_pictures() -> None:
    colour = np.array([[[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]]], np.uint8)
    assert gray(colour).tolist() == [[[77, 149], [29, 255]]]
    assert reduced(colour, 1).tolist() == [[[[127, 127, 127]]]]
    assert reduced(np.zeros((2, 5, 1024, 1), np.uint8), 512).shape == (2, 2, 512, 1)


def test_odd_sizes_and_shapes_are_compared_within_their_class() -> None:
    sizes = [("a", 100, 100)] * 5 + [("a", 20, 20), ("a", 25, 400)] + [("b", 20, 20)] * 3
    frame = pl.DataFrame(
        {
            "image_id": [bytes([number]) for number in range(len(sizes))],
            "label": [label for label, _, _ in sizes],
            "dataset": "d",
            "height": [height for _, height, _ in sizes],
            "width": [width for _, _, width in sizes],
            **dict.fromkeys(Measurements._fields, 0.5),
        }
    ).with_columns(area=pl.col("height") * pl.col("width"))
    found = find_quality_issues(frame.lazy(), {"odd_size": 0.9, "odd_aspect": 0.6})
    assert found.rows() == [(b"\x05", pytest.approx(1 - 1 / 25), "odd_size"), (b"\x06", 0.9375, "odd_aspect")]


def test_every_kind_has_a_key_and_a_meaning() -> None:
    assert list(IssuesPart.model_fields) == list(KINDS)
    assert all(of.meaning and 0 < of.threshold < 1 for of in KINDS.values())
    with pytest.raises(ValueError, match="'label' is not one of blank"):
        score_of("label", None)
