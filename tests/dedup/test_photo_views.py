"""Rule photo finds edited copies of photographs, in either order, and does not match unrelated images."""

import io
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
from examples import slow_but
from hypothesis import given, settings
from hypothesis import strategies as st
from making import encoded
from numpy.typing import NDArray
from photo_data import COPIES, patterns
from PIL import Image
from sklearn.datasets import load_sample_image

from pipeline.dedup.joins import inner_product
from pipeline.dedup.joins.inner_product import Product, view_hits
from pipeline.dedup.photo.thumbnails import thumbnails
from pipeline.dedup.rules import Entries, parse_rule, photo
from pipeline.dedup.rules.photo import Photo

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Pairs = dict[tuple[int, int], bytes]

SEEDS = st.integers(0, 2**32 - 1)
# So small that a few dozen vectors make many blocks; and as they are.
SMALL: dict[str, Any] = {"_BLOCK_ROWS": 3, "_BLOCK_COLUMNS": 5}
LARGE: dict[str, Any] = {name: getattr(inner_product, name) for name in SMALL}


class Crop(NamedTuple):
    """A square of a photograph, in pixels of it; any fraction will do."""

    photo: str
    y: float
    x: float
    side: float

    def seen(self, size: int = 64) -> Pixels:
        """Scale it to (size, size, 3)."""
        box = (self.x, self.y, self.x + self.side, self.y + self.side)
        return np.asarray(photograph(self.photo).resize((size, size), Image.Resampling.BOX, box=box))

    def moved(self, down: float, across: float) -> "Crop":
        """Shift it by pixels of its thumbnail."""
        step = self.side / 32
        return self._replace(y=self.y + down * step, x=self.x + across * step)


@lru_cache
def photograph(name: str) -> Image.Image:
    return Image.fromarray(load_sample_image(name))


@lru_cache
def unlike_crops() -> list[Crop]:
    """Crops with some texture that have no pixel in common, even when moved or enlarged a little."""
    rng, tile = np.random.default_rng(1), 84
    places = [
        (name, y, x) for name in ("china.jpg", "flower.jpg") for y in range(0, 336, tile) for x in range(0, 588, tile)
    ]
    made = [Crop(name, y + rng.uniform(5, 10), x + rng.uniform(5, 10), rng.uniform(56, 67)) for name, y, x in places]
    return [crop for crop in made if np.abs(np.diff(crop.seen().astype(float), axis=0)).mean() > 4]


@lru_cache
def fitted(least: float = 0.4) -> Photo:
    """Rule photo with a basis from a thousand crops."""
    rng = np.random.default_rng(2)
    sides = rng.uniform(60, 200, 1000)
    names = [str(name) for name in rng.choice(["china.jpg", "flower.jpg"], 1000)]
    crops = [Crop(n, rng.uniform(0, 427 - s), rng.uniform(0, 640 - s), s) for n, s in zip(names, sides, strict=True)]
    rule = parse_rule(f"photo:{least}").comparison
    assert isinstance(rule, Photo)
    return rule.using(rule.fit(rule.index(np.stack([crop.seen(32) for crop in crops]))))


# Copies of each kind, and how many are found at least if not all.
EACH = 15
LEAST = {"gray": 11}


@lru_cache
def planted() -> tuple[Photo, Entries, NDArray[np.int64], Entries]:
    """Rule photo:0.4, 180 textures and mosaics, and 15 copies of each kind with the positions of their originals."""
    pictures = patterns(0)
    source = np.random.default_rng(1).permutation(len(pictures))
    copies = [
        make(pictures[source[number * EACH + place]])
        for number, make in enumerate(COPIES.values())
        for place in range(EACH)
    ]
    rule = parse_rule("photo:0.4").comparison
    assert isinstance(rule, Photo)
    entries, edited = (
        rule.index(np.concatenate([thumbnails(np.asarray(one)[None]) for one in some])) for some in (pictures, copies)
    )
    return rule.using(rule.fit(entries)), entries, source, edited


def pairs_of(rule: Photo, left: Entries, right: Entries | None) -> Pairs:
    """Pairs with the bytes of their scores; each is there once, and of a side itself i < j."""
    found: Pairs = {}
    for part in rule.candidates(left, right):
        assert part.score is not None
        assert part.score.dtype == np.float32
        for i, j, score in zip(part.left.tolist(), part.right.tolist(), part.score, strict=True):
            assert right is not None or i < j
            assert (i, j) not in found
            found[i, j] = score.tobytes()
    return found


def scores(found: Pairs) -> dict[tuple[int, int], float]:
    return {pair: float(np.frombuffer(score, np.float32)[0]) for pair, score in found.items()}


def jpeg(crop: Crop) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(encoded(crop.seen(), "JPEG", quality=50))))


def in_other_light(crop: Crop) -> Pixels:
    return np.asarray(np.clip(crop.seen() * 0.7 + 30, 0, 255), np.uint8)


def enlarged(crop: Crop) -> Pixels:
    return crop._replace(y=crop.y + crop.side / 20, x=crop.x + crop.side / 20, side=crop.side * 0.9).seen()


HANDLED: dict[str, Callable[[Crop], Pixels]] = {
    "coded as JPEG": jpeg,
    "shifted down and left by 1": lambda crop: crop.moved(1, -1).seen(),
    "shifted up by 1": lambda crop: crop.moved(-1, 0).seen(),
    "shifted left by 2": lambda crop: crop.moved(0, -2).seen(),
    "shifted down by 2": lambda crop: crop.moved(2, 0).seen(),
    "mirrored": lambda crop: crop.seen()[:, ::-1],
    "enlarged by 10 %": enlarged,
    "in other light": in_other_light,
    "of another size": lambda crop: crop.seen(48),
    "mirrored and coded as JPEG": lambda crop: jpeg(crop)[:, ::-1],
    "turned by 90 degrees": lambda crop: np.rot90(crop.seen()),
    "turned by 180 degrees": lambda crop: np.rot90(crop.seen(), 2),
    "turned by 270 degrees and coded as JPEG": lambda crop: np.rot90(jpeg(crop), 3),
}


def whole(rng: np.random.Generator, n: int, d: int, seen: int) -> list[Floats]:
    """Views of n vectors of whole numbers, around few centres, some zero, of length about 2048: (n, d) each."""
    return [np.asarray(np.rint(rows * 2048), np.float32) for rows in described(rng, n, d, seen)]


def described(rng: np.random.Generator, n: int, d: int, seen: int) -> Floats:
    """Unit vectors and as many views, around few centres, some zero: (seen, n, d)."""
    rows = rng.normal(size=(4, d))[rng.integers(0, 4, n)] + rng.normal(size=(seen, n, d)) * rng.choice(
        [0.01, 0.3, 2], (n, 1)
    )
    rows[:, rng.random(n) < 0.1] = 0
    length = np.linalg.norm(rows, axis=2, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), np.float32)


def reached(left: list[Floats], right: list[Floats], products: list[Product]) -> set[tuple[int, int, int]]:
    """Which pairs reach which threshold, in float64, and the number of it."""
    found = [left[one].astype(float) @ right[two].astype(float).T >= least for one, two, least in products]
    return {(int(i), int(j), number) for number, some in enumerate(found) for i, j in np.argwhere(some)}


def hits(
    left: list[Floats], right: list[Floats], products: list[Product], first: int | None = None
) -> set[tuple[int, int, int]]:
    found = list(zip(*(part.tolist() for part in view_hits(left, right, products, first)), strict=True))
    assert len(set(found)) == len(found), "a pair twice"
    return set(found)


@settings(max_examples=40)
@given(SEEDS, st.integers(0, 60), st.integers(1, 100), st.sampled_from([SMALL, LARGE]))
def test_exactly_the_pairs_that_reach_a_threshold_are_found(seed: int, n: int, d: int, sizes: dict[str, Any]) -> None:
    rng = np.random.default_rng(seed)
    left, right = whole(rng, n, d, 3), whole(rng, int(rng.integers(0, 40)), d, 3)
    least = rng.uniform(0.1, 1, 2) * 2.0**22
    # At the product of a pair, where a rounding would count.
    own = left[0].astype(float) @ right[0].astype(float).T
    least[0] = rng.choice(own[own > 0]) if (own > 0).any() else least[0]
    products = [Product(0, 0, least[0]), Product(0, 1, least[1]), Product(1, 0, least[1]), Product(2, 2, least[0])]
    first = int(rng.integers(0, n + 1))
    part = [view[first : first + 25] for view in left]
    with patch.multiple(inner_product, **sizes):
        across = hits(left, right, products)
        itself = hits(part, left, products, first)
    assert across == reached(left, right, products)
    assert itself == {(i, j, number) for i, j, number in reached(part, left, products) if i + first < j}


def test_several_blocks_with_default_sizes() -> None:
    rng = np.random.default_rng(3)
    right = whole(rng, 2100, 8, 2)
    left = [view[1200:1900] for view in right]
    products = [Product(0, 0, 0.999 * 2.0**22), Product(0, 1, 0.999 * 2.0**22), Product(1, 0, 0.999 * 2.0**22)]
    found = hits(left, right, products)
    assert len(found) > 700
    assert found == reached(left, right, products)


@pytest.mark.parametrize(
    "handled", slow_but(["mirrored and coded as JPEG", "enlarged by 10 %", "turned by 90 degrees"], HANDLED)
)
def test_edited_copies_are_found_and_score_higher_than_unrelated_images(handled: str) -> None:
    crops = unlike_crops()
    assert len(crops) > 15
    copies = fitted().index(np.stack([HANDLED[handled](crop) for crop in crops]))
    originals = fitted().index(np.stack([crop.seen() for crop in crops]))
    found = scores(pairs_of(fitted(), originals, copies))
    loose = scores(pairs_of(fitted(0.01), originals, copies))
    of_copies = {pair for pair in found if pair[0] == pair[1]}
    assert len(of_copies) == len(crops)
    strangers = [score for (i, j), score in loose.items() if i != j]
    assert min(found[pair] for pair in of_copies) > max([0.4, *strangers])
    assert set(found) == of_copies


def originals_and_copies() -> tuple[Entries, Entries]:
    crops = unlike_crops()
    moved = [HANDLED[handled](crop) for crop in crops for handled in HANDLED if handled != "of another size"]
    sides = (np.stack([crop.seen() for crop in crops]), np.stack(moved))
    left, right = (fitted().index(side) for side in sides)
    return left, right


def test_exactly_the_pairs_with_close_outlines_and_descriptors_are_aligned() -> None:
    """Compare every pair in every way, in float64."""
    rule, (left, right) = fitted(), originals_and_copies()
    plan = photo._Plan.of(rule._fitted(), turns=True)  # noqa: SLF001 - the steps before the alignment
    one, other = plan.side(left), plan.side(right)
    outlined = [[some.astype(np.float64) for some in side] for side in (one.outlines, plan.oriented(other))]

    def cosines(way: photo._Way) -> NDArray[np.float64]:
        x, y = one.descriptors[way.left].astype(np.float64), other.descriptors[way.right].astype(np.float64)
        return np.asarray(x @ y.T)

    wanted = {}
    for product, ways in zip(plan.products, plan.ways, strict=True):
        close = outlined[0][product.left] @ outlined[1][product.right].T >= product.threshold
        for way in ways:
            cosine = cosines(way)
            for i, j in np.argwhere(close & (cosine >= way.least)).tolist():
                wanted[i, j, way.left, way.right] = cosine[i, j]
    near = photo._near(one, other, plan, None)  # noqa: SLF001 - as above
    found = dict(zip(zip(*(some.tolist() for some in near[:4]), strict=True), near.cosine.tolist(), strict=True))
    assert len(near.cosine) == len(found) == len(wanted) > 1000
    assert {way: pytest.approx(cosine, abs=1e-9) for way, cosine in wanted.items()} == found
    scored = scores(pairs_of(fitted(0.01), left, right))
    assert set(scored) <= {pair[:2] for pair in wanted}
    assert {pair for pair, score in scored.items() if score >= 0.4} == set(scores(pairs_of(rule, left, right)))


@pytest.mark.parametrize("kind", slow_but(list(COPIES)[::4], COPIES))
def test_copies_of_textures_and_mosaics_are_found(kind: str) -> None:
    """At 0.4, no two that are no copies are a pair."""
    rule, originals, source, copies = planted()
    number = list(COPIES).index(kind)
    copies = copies.take(slice(number * EACH, (number + 1) * EACH))
    found = scores(pairs_of(rule, originals, copies))
    wanted = {(int(i), j) for j, i in enumerate(source[number * EACH : (number + 1) * EACH])}
    assert len(wanted & set(found)) >= LEAST.get(kind, EACH)
    assert not set(found) - wanted


def test_turned_copies_are_no_pair_of_an_upright_rule() -> None:
    rule, originals, _, copies = planted()
    found = scores(pairs_of(rule, originals, copies))
    upright = scores(pairs_of(replace(rule, turns=False), originals, copies))
    turned = {pair for pair in found if "turned by" in list(COPIES)[pair[1] // EACH] and pair not in upright}
    assert set(found) - set(upright) == turned
    assert len(turned) == 3 * EACH
    assert {pair: found[pair] for pair in upright} == upright


def test_the_order_of_two_sides_changes_no_score() -> None:
    rule, (left, right) = fitted(0.05), originals_and_copies()
    found = pairs_of(rule, left, right)
    assert len(found) > 150
    assert pairs_of(rule, right, left) == {(j, i): score for (i, j), score in found.items()}


def test_a_score_does_not_depend_on_other_images_or_on_the_order() -> None:
    rule, (left, right) = fitted(0.05), originals_and_copies()
    found, n = pairs_of(rule, left, right), len(left.key)
    key, signature = np.concatenate([left.key, right.key]), np.concatenate([left.signature, right.signature])
    both = Entries(key, signature, np.concatenate([left.vector, right.vector]))
    itself = pairs_of(rule, both, None)
    assert {(i, j - n): score for (i, j), score in itself.items() if i < n <= j} == found
    order = np.random.default_rng(4).permutation(len(both.key))
    shuffled = pairs_of(rule, both.take(order), None)
    back = {(int(min(order[[i, j]])), int(max(order[[i, j]]))): score for (i, j), score in shuffled.items()}
    assert back == itself
    for pair in list(itself)[::400]:
        assert pairs_of(rule, both.take(np.array(pair)), None) == {(0, 1): itself[pair]}


def test_equal_thumbnails_score_one_and_constants_are_no_pair() -> None:
    rule = fitted(0.01)
    same = np.stack([unlike_crops()[0].seen(64)] * 3)
    assert set(scores(pairs_of(rule, rule.index(same), None)).values()) == {1.0}
    assert set(scores(pairs_of(fitted(1.0), rule.index(same), None)).values()) == {1.0}
    constant = np.full((4, 32, 32, 3), [[[[0]]], [[[0]]], [[[90]]], [[[255]]]], np.uint8)
    assert not pairs_of(rule, rule.index(constant), None)
    assert not pairs_of(rule, rule.index(constant), rule.index(same))
    none = rule.index(same).take(slice(0, 0))
    assert not pairs_of(rule, none, None)
    assert not pairs_of(rule, none, rule.index(same))
