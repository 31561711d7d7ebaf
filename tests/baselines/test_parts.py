"""Parts of the test role against sets, image by image."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.baselines.eval_data import find_overlaps, name_parts

RULES = ["exact", "sign", "maxpool:4"]
# Rows of clusters: rule, cluster, image. The images 0 to 11 are of train, 12 to 23 of test, the others of neither.
ROWS = st.sets(st.tuples(st.sampled_from(RULES), st.integers(0, 6), st.integers(0, 29)), max_size=60)


def ident(number: int) -> bytes:
    return number.to_bytes(16, "big")


def column(numbers: range | list[int]) -> pl.Series:
    return pl.Series("image_id", [ident(number) for number in numbers], dtype=pl.Binary)


def frame(rows: set[tuple[str, int, int]]) -> pl.LazyFrame:
    listed = [(rule, ident(cluster), ident(image)) for rule, cluster, image in rows]
    schema = {"rule": pl.String, "cluster_id": pl.Binary, "image_id": pl.Binary}
    return pl.LazyFrame(listed, schema=schema, orient="row")


@given(ROWS, st.sets(st.integers(0, 11)), st.permutations(range(12, 24)))
def test_overlap_is_what_shares_a_cluster_with_the_pool(
    rows: set[tuple[str, int, int]], pool: set[int], test: list[int]
) -> None:
    found = find_overlaps(frame(rows), column(sorted(pool)), column(test), RULES)
    assert list(found) == RULES
    for rule in RULES:
        clusters = {
            number: {image for of, cluster, image in rows if (of, cluster) == (rule, number)} for number in range(7)
        }
        expected = [any(image in cluster and cluster & pool for cluster in clusters.values()) for image in test]
        assert found[rule].tolist() == expected, rule


def test_twins_within_the_test_role_are_no_overlap() -> None:
    rows = {("exact", 0, 12), ("exact", 0, 13), ("exact", 1, 14), ("exact", 1, 29)}
    found = find_overlaps(frame(rows), column(range(12)), column(range(12, 24)), RULES)
    assert not any(mask.any() for mask in found.values())


def test_sanitized_and_overlap_share_out_the_original() -> None:
    kept = np.array([True, False, True, True])
    seen = np.array([True, True, False, False])
    parts = {(part.eval_on, part.rule): part.rows.tolist() for part in name_parts(kept, {"exact": seen})}
    assert list(parts) == [
        ("original", None),
        ("sanitized", None),
        ("overlap", None),
        ("sanitized", "exact"),
        ("overlap", "exact"),
    ]
    assert parts["original", None] == [True] * 4
    assert parts["overlap", None] == [False, True, False, False]
    assert parts["sanitized", "exact"] == [False, False, True, True]


def test_a_test_role_without_images_has_empty_parts() -> None:
    overlaps = find_overlaps(frame(set()), column([]), column([]), RULES)
    assert [len(part.rows) for part in name_parts(np.empty(0, dtype=np.bool_), overlaps)] == [0] * 9
