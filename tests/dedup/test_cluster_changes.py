"""Changes of clusters, compared with Python sets."""

from collections import defaultdict

import polars as pl
import pytest
from examples import few
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedup.clusters import cluster_changes, say_changes

NAMES = ["new", "grown", "merged", "shrunk", "changed", "same", "divided", "gone"]
# Which cluster each image is in.
Heads = dict[int, int]
HEADS = st.dictionaries(st.integers(0, 12), st.integers(0, 4))


def frame_of(heads: Heads) -> pl.DataFrame:
    rows = [(bytes([100 + head]), bytes([image])) for image, head in heads.items()]
    return pl.DataFrame(rows, schema={"cluster_id": pl.Binary, "image_id": pl.Binary}, orient="row")


def sets_of(heads: Heads) -> list[set[int]]:
    sets = defaultdict(set)
    for image, head in heads.items():
        sets[head].add(image)
    return list(sets.values())


def kind_of(now: set[int], before: list[set[int]], after: list[set[int]]) -> str:
    origins = [was for was in before if was & now]
    if len(origins) != 1:
        return "merged" if origins else "new"
    was = origins[0]
    if now <= was:
        return "same" if now == was else "shrunk"
    return "grown" if was & set().union(*after) <= now else "changed"


def written(clusters: str) -> pl.DataFrame:
    """Read clusters of one-letter images, as "ab cde"."""
    return frame_of({ord(image): n for n, images in enumerate(clusters.split()) for image in images})


@few(40)
@given(HEADS, HEADS)
def test_counts_equal_those_of_sets(then: Heads, now: Heads) -> None:
    before, after = sets_of(then), sets_of(now)
    kinds = [kind_of(members, before, after) for members in after]
    expected = {name: kinds.count(name) for name in NAMES}
    expected["divided"] = sum(sum(bool(was & members) for members in after) > 1 for was in before)
    expected["gone"] = sum(not any(was & members for members in after) for was in before)
    counts = cluster_changes(frame_of(then), frame_of(now))
    assert counts == expected
    assert list(counts) == NAMES
    assert sum(counts[name] for name in NAMES[:6]) == len(after)


@given(HEADS, st.permutations(range(5)))
def test_other_names_for_the_same_clusters_are_no_change(heads: Heads, names: list[int]) -> None:
    counts = cluster_changes(frame_of(heads), frame_of({image: names[head] for image, head in heads.items()}))
    assert say_changes(counts) == "no change"
    assert counts["same"] == len(set(heads.values()))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "ab", {"new": 1}),
        ("ab", "abc", {"grown": 1}),
        ("abc", "abx", {"grown": 1}),
        ("ab cd", "abcd", {"merged": 1}),
        ("abc", "ab", {"shrunk": 1}),
        ("abcd", "ab cd", {"shrunk": 2, "divided": 1}),
        ("abcd", "abx cd", {"shrunk": 1, "changed": 1, "divided": 1}),
        ("abcd ef", "ab cdef", {"shrunk": 1, "merged": 1, "divided": 1}),
        ("ab cd", "cd", {"same": 1, "gone": 1}),
        ("ab", "xy", {"new": 1, "gone": 1}),
    ],
)
def test_every_kind_of_change_by_example(before: str, after: str, expected: dict[str, int]) -> None:
    counts = cluster_changes(written(before), written(after))
    assert {name: count for name, count in counts.items() if count} == expected


def test_changes_are_formatted_as_text() -> None:
    assert say_changes({"new": 3, "grown": 12, "merged": 2, "same": 900, "gone": 0}) == "3 new, 12 grown, 2 merged"
    assert say_changes(dict.fromkeys(NAMES, 1_000)) == ", ".join(f"1,000 {name}" for name in NAMES if name != "same")
    assert say_changes(dict.fromkeys(NAMES, 0)) == "no change"
