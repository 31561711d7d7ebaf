"""Shapes of clusters, compared with a search from every image."""

from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from examples import few
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedup import components
from pipeline.dedup.components import cluster_shapes, link

Pairs = dict[tuple[int, int], float]

IDS = [bytes([n * 5]) + bytes(15) for n in range(50)]
SCHEMA = {"left_id": pl.Binary, "right_id": pl.Binary, "score": pl.Float32}
SHAPES = {
    "cluster_id": pl.Binary,
    "images": pl.Int64,
    "pairs": pl.Int64,
    "diameter": pl.Int64,
    "exact": pl.Boolean,
    "lowest": pl.Float32,
}

# Few pairs over many images make long clusters, many over few make round ones.
PAIRS = st.sampled_from([(5, 15), (12, 20), (20, 40), (len(IDS) - 1, 60)]).flatmap(
    lambda most: st.dictionaries(
        st.tuples(st.integers(0, most[0]), st.integers(0, most[0])).filter(lambda pair: pair[0] < pair[1]),
        st.integers(-4, 4).map(float),
        max_size=most[1],
    )
)


def pairs_of(pairs: Pairs) -> pl.DataFrame:
    return pl.DataFrame(
        [(IDS[left], IDS[right], score) for (left, right), score in pairs.items()], schema=SCHEMA, orient="row"
    )


def clusters_of(heads: dict[int, int]) -> pl.DataFrame:
    rows = [(IDS[head], IDS[image]) for image, head in heads.items()]
    return pl.DataFrame(rows, schema={"cluster_id": pl.Binary, "image_id": pl.Binary}, orient="row")


def steps_from(image: bytes, neighbours: dict[bytes, set[bytes]]) -> dict[bytes, int]:
    steps, edge = {image: 0}, [image]
    while edge:
        edge = sorted({other for here in edge for other in neighbours[here]} - set(steps))
        steps |= dict.fromkeys(edge, max(steps.values()) + 1)
    return steps


def searched(
    clusters: pl.DataFrame, pairs: pl.DataFrame
) -> list[tuple[bytes, int, int, int | None, bool, float | None]]:
    rows = []
    for name in clusters["cluster_id"].unique():
        members = set(clusters.filter(pl.col("cluster_id") == name)["image_id"])
        inside = [row for row in pairs.rows() if row[0] in members and row[1] in members]
        neighbours: dict[bytes, set[bytes]] = {image: set() for image in members}
        for left, right, _ in inside:
            neighbours[left].add(right)
            neighbours[right].add(left)
        steps = [steps_from(image, neighbours) for image in members]
        diameter = max(max(s.values()) for s in steps) if len(steps[0]) == len(members) else None
        lowest = min((score for _, _, score in inside), default=None)
        rows.append((name, len(members), len(inside), diameter, True, lowest))
    return sorted(rows, key=lambda row: (-row[1], row[0]))


# Sources per search and graph entries per chunk, so few that small clusters need several rounds.
TURNS = pytest.mark.parametrize(("bits", "entries"), [(64, 2_000_000), (1, 1), (2, 16), (3, 2_000_000)])


@TURNS
@few(15)
@given(PAIRS)
def test_shapes_of_components_and_stars_equal_those_of_a_search(bits: int, entries: int, pairs: Pairs) -> None:
    frame = pairs_of(pairs)
    for clusters in (link(frame, "components"), link(frame, "stars")):
        with patch.multiple(components, _SOURCES=bits, _ENTRIES_PER_SEARCH=entries):
            shapes = cluster_shapes(clusters, frame)
        assert shapes.schema == SHAPES
        assert shapes.rows() == searched(clusters, frame)


@few(30)
@given(PAIRS, st.dictionaries(st.integers(0, len(IDS) - 1), st.integers(0, 3)))
def test_clusters_that_are_not_made_of_the_pairs_have_shapes_too(pairs: Pairs, heads: dict[int, int]) -> None:
    clusters, frame = clusters_of(heads), pairs_of(pairs)
    assert cluster_shapes(clusters, frame).rows() == searched(clusters, frame)


@few(30)
@given(PAIRS, st.randoms(use_true_random=False), st.sampled_from([2, 2_000]))
def test_order_and_repeats_of_the_rows_change_nothing(pairs: Pairs, random: object, exact: int) -> None:
    frame = pairs_of(pairs)
    clusters = link(frame, "components")
    seed = random.randrange(2**31)  # type: ignore[attr-defined] # hypothesis' own Random
    more = pl.concat([frame, frame[::2]]).sample(fraction=1, shuffle=True, seed=seed)
    shuffled = clusters.sample(fraction=1, shuffle=True, seed=seed)
    with patch.object(components, "_MAX_EXACT_IMAGES", exact):
        assert cluster_shapes(shuffled, more).equals(cluster_shapes(clusters, frame))


@few(30)
@given(PAIRS)
def test_large_clusters_get_a_bound_that_is_at_least_half_and_never_more(pairs: Pairs) -> None:
    frame = pairs_of(pairs)
    clusters = link(frame, "components")
    with patch.object(components, "_MAX_EXACT_IMAGES", 3):
        found = cluster_shapes(clusters, frame)
    true = cluster_shapes(clusters, frame)
    assert found.drop("diameter", "exact").equals(true.drop("diameter", "exact"))
    for images, diameter, exact, longest in zip(
        found["images"], found["diameter"], found["exact"], true["diameter"], strict=True
    ):
        assert exact or images > 3
        assert (longest if exact else max(2, longest / 2)) <= diameter <= longest


@pytest.mark.parametrize("exact", [2, 2_000])
def test_a_path_is_as_long_as_its_pairs_and_a_ring_half_as_long(exact: int) -> None:
    path = {(n, n + 1): n / 2 for n in range(1, 40)}
    with patch.object(components, "_MAX_EXACT_IMAGES", exact):
        for ring, longest in ((path, 39), (path | {(1, 40): -1.0}, 20)):
            shapes = cluster_shapes(link(pairs_of(ring), "components"), pairs_of(ring))
            assert shapes.rows() == [(IDS[1], 40, len(ring), longest, exact > 40, min(ring.values()))]


def test_complete_clusters_and_those_with_a_hub_are_exact_at_any_size() -> None:
    complete = {(a, b): 0.0 for b in range(10) for a in range(b)}
    hub = {(10, n): 1.0 for n in range(11, 20)}
    with patch.object(components, "_MAX_EXACT_IMAGES", 2):
        shapes = cluster_shapes(link(pairs_of(complete | hub), "components"), pairs_of(complete | hub))
    assert shapes["diameter"].to_list() == [1, 2]
    assert shapes["exact"].to_list() == [True, True]


def test_clusters_of_more_images_than_one_search_starts_from() -> None:
    # A comb: a back of 150 images, each with a tooth of one; farthest apart are the teeth at the two ends.
    ids = [n.to_bytes(2, "big") + bytes(14) for n in range(300)]
    back = [(ids[n], ids[n + 1], 0.5) for n in range(149)]
    teeth = [(ids[n], ids[150 + n], 0.25) for n in range(150)]
    frame = pl.DataFrame(back + teeth, schema=SCHEMA, orient="row")
    shapes = cluster_shapes(link(frame, "components"), frame)
    assert shapes.rows() == [(ids[0], 300, 299, 151, True, 0.25)]


@pytest.mark.parametrize("exact", [3, 4])
def test_clusters_get_a_bound_only_when_they_have_more_images_than_are_searched(exact: int) -> None:
    path = pairs_of({(0, 1): 1.0, (1, 2): 1.0, (2, 3): 1.0})
    with patch.object(components, "_MAX_EXACT_IMAGES", exact):
        assert cluster_shapes(link(path, "components"), path)["exact"].to_list() == [exact == 4]


def test_the_image_farthest_from_the_centre_need_not_be_at_an_end_of_the_diameter() -> None:
    # Thousands of clusters, searched from one image at a time: an end of the search that is too early shows in some.
    count, images = 5_000, 12
    rng = np.random.default_rng(0)
    steps = np.where(rng.random((count, images, images)) < rng.uniform(0.1, 0.3, (count, 1, 1)), 1, 99)
    at = np.arange(images)
    steps[:, at[:-1], at[1:]] = np.where(at[:-1] < 6, 1, steps[:, at[:-1], at[1:]])
    steps = np.minimum(steps, steps.swapaxes(1, 2))
    steps[:, at, at] = 0
    of, left, right = np.nonzero(np.triu(steps == 1))
    for via in at:
        steps = np.minimum(steps, steps[:, :, via, None] + steps[:, None, via, :])
    longest = steps.max(axis=(1, 2))
    whole = longest < 99
    ids = np.array([n.to_bytes(16, "big") for n in range(count * images)], dtype=object)
    ends = {"left_id": ids[of * images + left][whole[of]], "right_id": ids[of * images + right][whole[of]]}
    frame = pl.DataFrame({name: part.tolist() for name, part in ends.items()})
    frame = frame.with_columns(score=pl.lit(1.0, dtype=pl.Float32))
    with patch.object(components, "_SOURCES", 1):
        shapes = cluster_shapes(link(frame, "components"), frame)
    assert whole.sum() > 1_000
    assert shapes.sort("cluster_id")["diameter"].to_list() == longest[whole].tolist()


def test_no_clusters_have_no_shapes() -> None:
    nothing = cluster_shapes(clusters_of({}), pairs_of({(0, 1): 1.0}))
    assert nothing.schema == SHAPES
    assert nothing.is_empty()


def test_pairs_do_not_connect_a_cluster_by_way_of_another() -> None:
    clusters = clusters_of({0: 0, 1: 0, 2: 2, 3: 2})
    shapes = cluster_shapes(clusters, pairs_of({(0, 2): 1.0, (1, 2): 1.0, (2, 3): 3.0, (0, 4): -9.0}))
    assert shapes.rows() == [(IDS[0], 2, 0, None, True, None), (IDS[2], 2, 1, 1, True, 3.0)]
