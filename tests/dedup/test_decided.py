"""Decisions of people change clusters as the definition says: compared with one link after the other."""

from itertools import combinations, product

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedup.clusters import cluster_by_keys
from pipeline.dedup.components import link
from pipeline.dedup.decided import NOTHING, Decided, Outcome, apply_decisions, key_links

IMAGES = 12
_SCORES = st.integers(0, 3).map(lambda level: level / 4)
_PAIRS = [(a, b) for a, b in combinations(range(IMAGES), 2)]


def name(number: int) -> bytes:
    """Return the id of an image; ids sort as numbers do."""
    return number.to_bytes(16, "big")


@st.composite
def decisions(draw: st.DrawFn) -> tuple[list[int], dict[tuple[int, int], bool]]:
    """Draw the picture of every image, and for some pairs of pictures whether they are the same."""
    pictures = draw(st.lists(st.integers(0, 8), min_size=IMAGES, max_size=IMAGES))
    possible = [(a, b) for a, b in combinations(sorted(set(pictures)), 2)]
    decided = draw(st.dictionaries(st.sampled_from(possible), st.booleans(), max_size=6)) if possible else {}
    return pictures, decided


def as_decided(pictures: list[int], decided: dict[tuple[int, int], bool]) -> Decided:
    """Write decisions as frames."""
    used = sorted({picture for pair in decided for picture in pair})
    rows = [(name(image), picture) for image, picture in enumerate(pictures) if picture in used]
    frames = [
        pl.DataFrame(
            sorted(pair for pair, same in decided.items() if same is wanted),
            schema={"left": pl.UInt32, "right": pl.UInt32},
            orient="row",
        )
        for wanted in (True, False)
    ]
    return Decided(pl.DataFrame(rows, schema=NOTHING.images.schema, orient="row"), frames[0], frames[1])


def one_by_one(
    scores: dict[tuple[int, int], float],
    clusters: list[set[int]],
    pictures: list[int],
    decided: dict[tuple[int, int], bool],
) -> list[set[int]]:
    """Apply decisions as the definition says."""
    first = {picture: pictures.index(picture) for picture in set(pictures)}
    same = sorted(tuple(sorted((first[a], first[b]))) for (a, b), is_same in decided.items() if is_same)
    united = {picture for pair, is_same in decided.items() if is_same for picture in pair}
    copies = [(first[pictures[image]], image) for image in range(IMAGES) if pictures[image] in united]
    sets = [{image} for image in range(IMAGES)]
    for linked in [*clusters, *map(set, same), *map(set, copies)]:
        sets = [*(one for one in sets if not one & linked), set().union(*(one for one in sets if one & linked), linked)]
    apart = [pair for pair, is_same in decided.items() if not is_same]

    def clash(members: set[int]) -> bool:
        held = {pictures[image] for image in members}
        return any(a in held and b in held for a, b in apart)

    found = []
    for members in sets:
        if not clash(members):
            found.append(members)
            continue
        copies = [
            (a, b)
            for a, b in combinations(sorted(members), 2)
            if pictures[a] == pictures[b] and any(pictures[a] in pair for pair in decided)
        ]
        by_score = sorted((-score, *pair) for pair, score in scores.items())
        parts = [{image} for image in members]
        for a, b in [*copies, *same, *(pair[1:] for pair in by_score)]:
            if a in members and b in members:
                one, other = (next(part for part in parts if image in part) for image in (a, b))
                if one is not other and not clash(one | other):
                    parts = [*(part for part in parts if part not in (one, other)), one | other]
        found += parts
    return sorted((one for one in found if len(one) > 1), key=min)


def as_sets(clusters: pl.DataFrame) -> list[set[int]]:
    """Read clusters as sets of numbers."""
    rows = clusters.group_by("cluster_id").agg("image_id").rows()
    sets = [{int.from_bytes(image, "big") for image in images} for _, images in rows]
    assert all(cluster == name(min(found)) for (cluster, _), found in zip(rows, sets, strict=True))
    return sorted(sets, key=min)


@given(st.dictionaries(st.sampled_from(_PAIRS), _SCORES, max_size=20), decisions())
def test_pairs_are_taken_by_falling_score(
    scores: dict[tuple[int, int], float], drawn: tuple[list[int], dict[tuple[int, int], bool]]
) -> None:
    rows = [(name(a), name(b), score) for (a, b), score in scores.items()]
    pairs = pl.DataFrame(rows, schema={"left_id": pl.Binary, "right_id": pl.Binary, "score": pl.Float32}, orient="row")
    clusters = link(pairs, "components")
    found, _ = apply_decisions(clusters, as_decided(*drawn), lambda _: pairs.sample(fraction=1, shuffle=True))
    assert as_sets(found) == one_by_one(scores, as_sets(clusters), *drawn)


@given(st.lists(st.integers(0, 3), min_size=IMAGES, max_size=IMAGES), decisions())
def test_images_with_equal_keys_are_all_linked(
    keys: list[int], drawn: tuple[list[int], dict[tuple[int, int], bool]]
) -> None:
    index = pl.DataFrame(
        {
            "key": keys,
            "signature": np.zeros(IMAGES, np.int64),
            "image_id": [name(image) for image in range(IMAGES)],
            "label": "a",
            "dataset": "a",
            "split": "a",
            "rule": "exact",
        }
    )
    clusters = cluster_by_keys(index.lazy()).collect()
    found, _ = apply_decisions(clusters, as_decided(*drawn), lambda images: key_links(index, images))
    scores = {(a, b): 1.0 for a, b in _PAIRS if keys[a] == keys[b]}
    assert as_sets(found) == one_by_one(scores, as_sets(clusters), *drawn)


def test_what_changed_is_counted() -> None:
    ends = pl.Schema({"left_id": pl.Binary, "right_id": pl.Binary, "score": pl.Float32})
    pairs = pl.DataFrame([(name(0), name(1), 0.9), (name(1), name(2), 0.8)], schema=ends, orient="row")
    clusters = link(pairs, "components")
    pictures = list(range(IMAGES))
    # 1 is different from 2; 3 is the same as 4 and as 5, which is different from 4; 0 and 1 are the same anyway.
    decided = {(1, 2): False, (3, 4): True, (3, 5): True, (4, 5): False, (0, 1): True, (6, 7): False}
    found, outcome = apply_decisions(clusters, as_decided(pictures, decided), lambda _: pairs)
    assert as_sets(found) == [{0, 1}, {3, 4}]
    assert outcome == Outcome(linked=1, apart=2, overruled=1)


def test_other_clusters_keep_their_names() -> None:
    """The centre of a star may not be its smallest image."""
    stars = pl.DataFrame(
        {"cluster_id": [name(2)] * 3 + [name(5)] * 2, "image_id": [name(image) for image in (1, 2, 3, 4, 5)]}
    )
    decided = as_decided(list(range(IMAGES)), {(6, 7): True, (1, 9): False})
    found, _ = apply_decisions(stars, decided, lambda _: pl.DataFrame())
    kept = found.filter(pl.col("cluster_id").is_in(stars["cluster_id"].implode()))
    assert kept.equals(stars.sort("cluster_id", "image_id"))
    assert len(found) == len(stars) + 2


def test_decisions_without_effect_change_nothing() -> None:
    clusters = pl.DataFrame({"cluster_id": [name(0)] * 2, "image_id": [name(0), name(1)]})
    for pair in product((2, 3), (4, 5)):
        found, outcome = apply_decisions(clusters, as_decided(list(range(IMAGES)), {pair: False}), lambda _: clusters)
        assert found.equals(clusters)
        assert outcome == Outcome()
