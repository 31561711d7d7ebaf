"""Clusters, overlap and conflicts against plain Python sets."""

from collections import defaultdict
from unittest.mock import patch

import numpy as np
import polars as pl
import pyarrow as pa
from examples import few
from hypothesis import given
from hypothesis import strategies as st

from pipeline.arrow_columns import to_binary
from pipeline.dedup import clusters as clusters_module
from pipeline.dedup.clusters import cluster_by_keys, label_conflicts, overlap_matrix, redundancy
from pipeline.dedup.rules import index_table, parse_rule, sort_index
from pipeline.hashing import image_ids

# One row per image: its pixel value, its label, its role.
IMAGES = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["A", "B", None]), st.sampled_from(["train", "valid", "test"])),
    max_size=30,
)
Rows = list[tuple[int, str | None, str]]


def lake_of(rows: Rows) -> tuple[pl.DataFrame, pl.DataFrame, list[bytes]]:
    """Index and members of images that show `rows[i][0]`, by rule exact."""
    ids = image_ids("d", "s", map(str, range(len(rows))))
    pixels = np.array([row[0] for row in rows], np.uint8).reshape(-1, 1, 1, 1)
    labels = pa.array([row[1] for row in rows], pa.string())
    table = sort_index([index_table(parse_rule("exact"), to_binary(ids), labels, pixels)])
    index = pl.DataFrame(table).with_columns(
        pl.lit("exact").alias("rule"), pl.lit("d").alias("dataset"), pl.lit("s").alias("split")
    )
    names = [bytes(row) for row in ids]
    members = pl.DataFrame(
        {"image_id": names, "role": [row[2] for row in rows]}, schema={"image_id": pl.Binary, "role": pl.String}
    )
    return index, members, names


def groups_of(rows: Rows) -> dict[int, list[int]]:
    groups = defaultdict(list)
    for i, row in enumerate(rows):
        groups[row[0]].append(i)
    return {shown: members for shown, members in groups.items() if len(members) > 1}


@few(40)
@given(IMAGES, st.randoms())
def test_clusters_are_groups_of_equal_images(rows: Rows, random: object) -> None:
    index, _, names = lake_of(rows)
    clusters = cluster_by_keys(index.lazy()).collect()
    expected = sorted(
        (min(names[i] for i in members), names[i]) for members in groups_of(rows).values() for i in members
    )
    assert clusters.select("cluster_id", "image_id").rows() == expected
    shuffled = index.sample(fraction=1, shuffle=True, seed=random.randrange(2**31))  # type: ignore[attr-defined] # hypothesis' own Random
    assert cluster_by_keys(shuffled.lazy()).collect().equals(clusters)


@few(60)
@given(
    st.lists(st.tuples(st.sampled_from(["exact", "sign"]), st.integers(-2, 2), st.integers(0, 1)), max_size=30),
    st.sampled_from([(1, 8), (2, 8), (1, 1), (100_000, 8)]),
)
def test_clusters_have_equal_rule_key_and_signature_for_any_batch_size(
    rows: list[tuple[str, int, int]], at_once: tuple[int, int]
) -> None:
    made = [
        {"rule": rule, "key": key, "signature": signature, "image_id": bytes([n]), "label": "A"}
        for n, (rule, key, signature) in enumerate(rows)
    ]
    schema = {"rule": pl.String, "key": pl.Int64, "signature": pl.Int64, "image_id": pl.Binary, "label": pl.String}
    index = pl.DataFrame(made, schema=schema).with_columns(dataset=pl.lit("d"), split=pl.lit("s"))
    groups = defaultdict(list)
    for n, row in enumerate(rows):
        groups[row].append(bytes([n]))
    expected = sorted((rule, ids[0], i) for (rule, *_), ids in groups.items() if len(ids) > 1 for i in ids)
    with patch.multiple(clusters_module, _KEYS_PER_PASS=at_once[0], _MAX_PASSES=at_once[1]):
        found = cluster_by_keys(index.lazy()).collect()
    assert found.select("rule", "cluster_id", "image_id").rows() == expected
    assert found.columns == ["cluster_id", "image_id", "label", "dataset", "split", "rule"]


@few(40)
@given(IMAGES)
def test_overlap_counts_images_of_one_role_that_occur_in_another(rows: Rows) -> None:
    index, members, _ = lake_of(rows)
    clusters = cluster_by_keys(index.lazy())
    expected = {}
    for role in ("train", "valid", "test"):
        for other in ("train", "valid", "test"):
            count = sum(
                any(j != i and rows[j][0] == row[0] and rows[j][2] == other for j in range(len(rows)))
                for i, row in enumerate(rows)
                if row[2] == role
            )
            if count:
                expected["exact", role, other] = count
    found = overlap_matrix(clusters, members.lazy())
    assert {row[:3]: row[3] for row in found.rows()} == expected
    assert found.select("rule", "role", "other").rows() == sorted(expected)


@few(40)
@given(IMAGES)
def test_redundancy_and_conflicts_count_clusters_inside_a_role(rows: Rows) -> None:
    index, members, names = lake_of(rows)
    clusters = cluster_by_keys(index.lazy())
    expected = []
    for role in ("test", "train", "valid"):
        inside = [
            part for group in groups_of(rows).values() if len(part := [i for i in group if rows[i][2] == role]) > 1
        ]
        several = sum(len({rows[i][1] for i in part} - {None}) > 1 for part in inside)
        if inside:
            expected.append(("exact", role, len(inside), sum(len(part) - 1 for part in inside), several))
    assert redundancy(clusters, members.lazy()).rows() == expected
    conflicting = {
        names[i] for group in groups_of(rows).values() if len({rows[i][1] for i in group} - {None}) > 1 for i in group
    }
    assert set(label_conflicts(clusters).collect()["image_id"]) == conflicting


def test_five_hundred_blank_images_are_one_cluster() -> None:
    index, _, _ = lake_of([(0, "A", "train")] * 500)
    clusters = cluster_by_keys(index.lazy()).collect()
    assert len(clusters) == 500
    assert clusters["cluster_id"].n_unique() == 1


def test_a_bucket_is_the_top_of_the_key_and_the_index_is_sorted_by_it() -> None:
    index, _, _ = lake_of([(i % 5, "A", "train") for i in range(200)])
    assert index["bucket"].to_list() == [key >> 56 & 0xFF for key in index["key"]]
    assert index.equals(index.sort("bucket", "key", "image_id"))
