"""The page of pairs: text is escaped, nothing is loaded; images of any size side by side, with their differences."""

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from pages import Page
from PIL import Image

from pipeline.report.formatting import score as write_score
from pipeline.report.review import describe_pairs, draw_difference, render_pairs

SCRIPT = "<script>alert(1)</script>"
QUOTE = "\"'><img src=x onerror=alert(1)>-->{{ 7*7 }}"
Row = dict[str, Any]


def image(number: int, pixels: NDArray[np.uint8]) -> Row:
    height, width = pixels.shape[:2]
    shape = {"height": height, "width": width, "channels": pixels.shape[2] if pixels.ndim > 2 else 1}
    return {"image_id": bytes([number]) * 16, **shape, "pixels": pixels.tobytes()}


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pair(text: str = "A", **values: Any) -> Row:
    sides = {
        f"{side}_{name}": value
        for number, side in enumerate(("left", "right"))
        for name, value in {
            "id": bytes([number]) * 16,
            "path": f"{text}/{number}.png",
            "label": text,
            "role": ("train", "test")[number],
        }.items()
    }
    return {**sides, "score": 0.97, "conflict": False, "cluster_id": bytes(16), **values}


def page(shown: list[Row], images: list[Row], **values: Any) -> str:
    said = {"lake": "toy", "release": 3, "rule": "cosine:0.95", "headline": "Shown are all.", "from_clusters": False}
    return render_pairs({**said, "shown": shown, **values}, pl.DataFrame(images))


def opened(shown: Row) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(shown["src"].removeprefix("data:image/png;base64,"))))


def images_of(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> list[Row]:
    return [image(0, one), image(1, other)]


@pytest.mark.parametrize("text", ["plain", SCRIPT, QUOTE, "\u202e\x1b[31m\0", "漢字 ἄλφα", "a" * 5000, ""])
def test_untrusted_text_is_escaped(text: str) -> None:
    given = pair(text, conflict=True, left_role=text, cluster_id=None)
    html = page([given], images_of(noise(8, 8), noise(8, 8, seed=1)), lake=text, headline=text)
    parsed = Page(html)
    assert parsed.open == []
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert not {"<script", "\x1b", "\u202e", "\0", "49"} & {html[at : at + 7].rstrip(">") for at in range(len(html))}
    assert len([tag for tag, _ in parsed.tags if tag == "img"]) == 3


def test_the_page_loads_nothing_and_refuses_scripts() -> None:
    html = page([pair()], images_of(noise(8, 8), noise(8, 8)))
    tags = Page(html).tags
    assert all(value.startswith("data:image/png;base64,") for _, a in tags if (value := a.get("src")))
    assert {a["href"] for _, a in tags if a.get("href")} == {"#pair-1"}
    assert "default-src 'none'; img-src data:" in html
    assert not [word for word in ("http://", "https://", "url(", "@import") if word in html]
    assert '<meta name="viewport"' in html
    assert "prefers-color-scheme: dark" in html


def test_the_page_is_the_same_every_time() -> None:
    images = images_of(noise(30, 20, 3), noise(30, 20, 3, seed=1))
    assert page([pair()], images) == page([pair()], images[::-1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pixels: pixels, ""),
        (lambda pixels: pixels[:, ::-1], "mirrored"),
        (lambda pixels: np.rot90(pixels, 3), "turned by 90 degrees"),
        (lambda pixels: np.rot90(pixels, 2), "turned by 180 degrees"),
        (np.rot90, "turned by 270 degrees"),
    ],
)
@pytest.mark.parametrize("shape", [(9, 14, 3), (12, 12, 1)])
def test_mirrored_and_turned_pictures_are_aligned_before_they_are_subtracted(
    shape: tuple[int, ...], change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], said: str
) -> None:
    one = noise(*shape)
    other = np.ascontiguousarray(change(one)).copy()
    other[0, 0] ^= 255
    left, right = images_of(one, other)
    shown = draw_difference(left, right, 5)
    assert shown is not None
    assert (shown["changed"], shown["pixels"], shown["of"]) == (said, 1, one.shape[0] * one.shape[1])
    given = pair()
    assert (said in page([given], images_of(one, other), rule="photo:0.4")) or not said
    upright = page([given], images_of(one, other), rule="photo:0.4:upright")
    assert "turned by" not in upright
    assert said != "mirrored" or "with the second mirrored" in upright
    assert "with the second" not in page([given], images_of(one, other), rule="cosine:0.9")


def test_a_page_without_pairs_says_so() -> None:
    assert "There are no pairs to review." in page([], images_of(noise(1, 1), noise(1, 1)))


def test_what_stands_out_is_marked() -> None:
    images = images_of(noise(8, 8), noise(8, 8, seed=1))
    both = page([pair(conflict=True, right_label="B"), pair(right_role=None, left_label=None, cluster_id=None)], images)
    assert both.count("labels differ") == 1
    assert both.count(">train and test<") == 1
    assert both.count('class="pair conflict crossing"') == both.count('class="pair"') == 1
    assert {"in no role", "<i>no label</i>", "cluster <span"} <= {
        part for part in ("in no role", "<i>no label</i>", "cluster <span") if both.count(part) == 1
    }
    assert "different labels only" in both
    assert "different labels only" not in page([pair(conflict=True)], images)
    assert "decided by keys alone" in page([pair()], images, from_clusters=True)
    assert "share of the 64 bits" in page([pair()], images, rule="hamming:6")
    assert "the higher is the score" in page([pair()], images, rule="photo:0.6")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((28, 28), (28, 28)),
        ((28, 28), (28, 28, 3)),
        ((300, 450, 3), (7, 1)),
        ((1, 1), (1, 5000)),
        ((160, 160), (161, 161)),
    ],
)
def test_pictures_are_enlarged_whole_or_scaled_down_to_160(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    given = images_of(noise(*one), noise(*other, seed=1))
    (described,) = describe_pairs([pair()], {row["image_id"]: row for row in given})
    for side, row in zip(described["sides"], given, strict=True):
        drawn = opened(side)
        assert drawn.mode == ("L" if row["channels"] == 1 else "RGB")
        assert max(side["show_width"], side["show_height"]) <= 160
        assert (side["show_width"], side["show_height"]) == tuple(length * side["scale"] for length in drawn.size)
        assert side["size"] == f"{row['height']} x {row['width']}"
        if max(row["height"], row["width"]) <= 160:
            assert drawn.tobytes() == row["pixels"]
    alike = [(row["height"], row["width"], row["channels"]) for row in given]
    assert (described["difference"] is None) == (alike[0] != alike[1])
    assert page([pair()], given).count("<img") == (3 if alike[0] == alike[1] else 2)


def test_pictures_of_other_sizes_are_said_to_be() -> None:
    assert "sizes differ: 3 x 4 and 4 x 3" in page([pair()], images_of(noise(3, 4), noise(4, 3)))
    assert "channels differ" in page([pair()], images_of(noise(3, 4), noise(3, 4, 3)))


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (400, 200, 3)])
def test_a_difference_is_counted_and_drawn_where_it_is(shape: tuple[int, ...]) -> None:
    one = noise(*shape) // 2
    other = one.copy()
    other[5, 7:10] += 100
    shown = draw_difference(image(0, one), image(1, other))
    assert shown is not None
    assert (shown["pixels"], shown["of"], shown["most"]) == (3, shape[0] * shape[1], 100)
    if max(shape) <= 160:
        alpha = np.asarray(opened(shown))[..., 3]
        assert set(zip(*np.nonzero(alpha), strict=True)) == {(5, 7), (5, 8), (5, 9)}
    same = draw_difference(image(0, one), image(1, one))
    assert same is not None
    assert same["pixels"] == same["most"] == 0
    assert "all pixels are equal" in page([pair()], images_of(one, one))


@pytest.mark.parametrize(
    ("score", "text"),
    [(1.0, "1"), (0.99999994, ">0.9999"), (0.949999988, "0.9500"), (0.90625, "0.9062"), (-0.5, "-0.5000")],
)
def test_scores_are_never_rounded_up_to_one(score: float, text: str) -> None:
    assert write_score(score) == text


def test_a_cluster_has_its_colour() -> None:
    images = {row["image_id"]: row for row in images_of(noise(2, 2), noise(2, 2))}
    one, other = bytes(16), b"\x01" * 16
    hues = [row["hue"] for row in describe_pairs([pair(cluster_id=c) for c in (one, other, one, None)], images)]
    assert hues[0] == hues[2] != hues[1]
    assert all(0 <= hue < 360 for hue in hues)
