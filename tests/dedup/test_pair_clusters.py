"""Clusters of pairs, compared with union-find and with a greedy loop over images."""

from collections import Counter, defaultdict
from random import Random
from typing import Literal
from unittest.mock import patch

import polars as pl
import pytest
from examples import few
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedup import components
from pipeline.dedup.components import link, link_batches, number_ids

Pairs = list[tuple[int, int]]
METHODS: tuple[Literal["components"], Literal["stars"]] = ("components", "stars")

# In the order of bytes; as signed numbers the upper half would come first. Some differ in the last byte alone.
IDS = sorted(bytes([first]) + bytes(14) + bytes([last]) for first in (0, 1, 127, 128, 255) for last in range(6))

# Many images make sparse graphs with long chains, few make dense ones.
PAIRS = st.sampled_from([6, 14, len(IDS) - 1]).flatmap(
    lambda most: st.lists(
        st.tuples(st.integers(0, most), st.integers(0, most)).filter(lambda pair: pair[0] < pair[1]),
        max_size=40,
        unique=True,
    )
)

MANY = [n.to_bytes(16, "big") for n in range(20_000)]


def frame_of(pairs: Pairs, ids: list[bytes] = IDS) -> pl.DataFrame:
    columns = {"left_id": [ids[left] for left, _ in pairs], "right_id": [ids[right] for _, right in pairs]}
    return pl.DataFrame(columns, schema={"left_id": pl.Binary, "right_id": pl.Binary})


def neighbours_of(pairs: Pairs) -> dict[int, set[int]]:
    neighbours = defaultdict(set)
    for left, right in pairs:
        neighbours[left].add(right)
        neighbours[right].add(left)
    return dict(neighbours)


def rows_of(heads: dict[int, int], ids: list[bytes] = IDS) -> list[tuple[bytes, bytes]]:
    sizes = Counter(heads.values())
    return sorted((ids[head], ids[image]) for image, head in heads.items() if sizes[head] > 1)


def union_find(pairs: Pairs) -> dict[int, int]:
    parents = {image: image for pair in pairs for image in pair}

    def root(image: int) -> int:
        return image if parents[image] == image else root(parents[image])

    for left, right in pairs:
        low, high = sorted((root(left), root(right)))
        parents[high] = low
    return {image: root(image) for image in parents}


def one_by_one(pairs: Pairs) -> dict[int, int]:
    neighbours = neighbours_of(pairs)
    order = sorted(neighbours, key=lambda image: (-len(neighbours[image]), image))
    chosen: list[int] = []
    for image in order:
        if not neighbours[image] & set(chosen):
            chosen.append(image)
    return {
        image: image if image in chosen else next(head for head in chosen if head in neighbours[image])
        for image in order
    }


@few(60)
@given(PAIRS)
def test_components_equal_union_find(pairs: Pairs) -> None:
    assert link(frame_of(pairs), "components").rows() == rows_of(union_find(pairs))


@few(60)
@given(PAIRS, st.integers(1, 9))
def test_components_in_batches_equal_union_find(pairs: Pairs, edges: int) -> None:
    with patch.object(components, "_EDGES", edges):
        assert link_batches(frame_of(pairs).lazy()).rows() == rows_of(union_find(pairs))


@given(PAIRS)
def test_stars_equal_the_greedy_loop(pairs: Pairs) -> None:
    assert link(frame_of(pairs), "stars").rows() == rows_of(one_by_one(pairs))


@pytest.mark.parametrize("reach", [2, 4, 8])
def test_stars_equal_the_greedy_loop_if_decisions_take_many_rounds(reach: int) -> None:
    random = Random(reach)
    pairs = sorted({(n, n + random.randint(1, reach)) for n in range(1_500) for _ in range(reach)})
    assert link(frame_of(pairs, MANY), "stars").rows() == rows_of(one_by_one(pairs), MANY)


@few(50)
@given(PAIRS)
def test_every_member_of_a_star_is_paired_with_its_representative(pairs: Pairs) -> None:
    known = set(frame_of(pairs).rows())
    stars = link(frame_of(pairs), "stars")
    assert all(tuple(sorted(row)) in known for row in stars.rows() if row[0] != row[1])
    assert set(stars["cluster_id"]) <= set(stars.filter(pl.col("cluster_id") == pl.col("image_id"))["image_id"])
    assert stars["image_id"].is_unique().all()


@few(40)
@given(PAIRS, st.randoms(use_true_random=False), st.sampled_from(METHODS))
def test_order_and_repeats_of_the_rows_change_nothing(
    pairs: Pairs, random: object, method: Literal["components", "stars"]
) -> None:
    more = pairs + pairs[::2] + pairs[:1] * 256
    random.shuffle(more)  # type: ignore[attr-defined] # hypothesis' own Random
    assert link(frame_of(more), method).equals(link(frame_of(pairs), method))


@pytest.mark.parametrize("method", METHODS)
def test_no_pairs_make_no_clusters(method: Literal["components", "stars"]) -> None:
    nothing = link(frame_of([]), method)
    assert nothing.schema == {"cluster_id": pl.Binary, "image_id": pl.Binary}
    assert nothing.is_empty()


def test_components_chain_and_stars_do_not() -> None:
    chain = frame_of([(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)])
    assert link(chain, "components")["cluster_id"].unique().to_list() == [IDS[0]]
    assert link(chain, "stars").rows() == [(IDS[n], IDS[i]) for n, i in ((1, 0), (1, 1), (1, 2), (3, 3), (3, 4))]


def test_a_representative_whose_neighbours_joined_other_stars_has_no_row() -> None:
    # Image 4 is paired with 3 only, and 3 joins the star of 0, which has three pairs.
    stars = link(frame_of([(0, 1), (0, 2), (0, 3), (3, 4)]), "stars")
    assert stars["image_id"].to_list() == IDS[:4]


@pytest.mark.parametrize("method", METHODS)
def test_a_long_sorted_path_takes_no_longer_than_its_pairs(method: Literal["components", "stars"]) -> None:
    found = link(frame_of([(n, n + 1) for n in range(20_000 - 1)], MANY), method)
    assert found["cluster_id"].n_unique() == (1 if method == "components" else 10_000 - 1)


def test_numbers_follow_the_order_of_bytes_over_all_columns() -> None:
    first, second, none = pl.Series(IDS[::-2]), pl.Series(IDS[::2]), pl.Series([], dtype=pl.Binary)
    numbers = number_ids(first, none, second)
    assert [part.tolist() for part in numbers] == [list(range(29, 0, -2)), [], list(range(0, 30, 2))]


@pytest.mark.parametrize("wrong", [None, b"", b"short", bytes(17)])
def test_a_missing_or_short_id_is_an_error(wrong: bytes | None) -> None:
    pairs = pl.DataFrame({"left_id": [IDS[0], IDS[1]], "right_id": [IDS[2], wrong]})
    with pytest.raises(ValueError, match="1 image_ids are missing or not 16 bytes long"):
        link(pairs, "components")


@pytest.mark.parametrize("pair", [(3, 3), (3, 2)])
def test_a_pair_in_the_wrong_order_is_an_error(pair: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="write the smaller image_id first"):
        link(frame_of([(0, 1), pair]), "stars")
