"""Reviews equal a brute-force search over all pairs, for every query."""

import re
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from lakes import commit, publish, read_meta, write_part

from pipeline.errors import LakeError
from pipeline.lake.delta_log import Metadata
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.review import ReviewQuery, review_clusters, review_pairs, write_review
from schemas import TABLES

RULE = "cosine:0.95"
LOOSE = "cosine:0.5"
# Compares keys only: it has clusters and no pairs.
KEYS = "maxpool:2"
Row = dict[str, Any]

QUERIES: list[dict[str, Any]] = [
    {**filters, **role, "split": split}
    for split in (None, "main")
    for filters in ({}, {"between": True}, {"conflicts": True}, {"between": True, "conflicts": True})
    for role in ({}, {"best": "test" if split else "d/test"})
]


def add(root: str, table: str, rule: str, rows: pl.DataFrame) -> None:
    """Commit rows of a rule to pairs or clusters."""
    full = rows.with_columns(rule=pl.lit(rule)).select(TABLES[table].schema.names)
    part = write_part(root, table, {"rule": rule}, full.to_arrow().cast(TABLES[table].schema))
    meta = read_meta(root, table)
    commit(root, table, [part] if part else [], lambda _: False, Metadata("dedup", {**meta.units, rule: {}}))


def random_pairs(ids: list[bytes], count: int, seed: int = 0) -> pl.DataFrame:
    """Draw pairs whose scores are often equal."""
    rng = np.random.default_rng(seed)
    drawn = {tuple(sorted(rng.choice(len(ids), 2, replace=False))) for _ in range(count)}
    rows = [
        (min(ids[a], ids[b]), max(ids[a], ids[b]), 0.95 + rng.integers(0, 6) / 128)
        for a, b in sorted(map(tuple, drawn))
    ]
    schema = {"left_id": pl.Binary, "right_id": pl.Binary, "score": pl.Float32}
    return pl.DataFrame(rows, schema=schema, orient="row").sample(fraction=1, shuffle=True, seed=seed)


def random_clusters(images: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """Put most images into clusters of one to nine."""
    number = pl.Series("number", np.random.default_rng(seed).integers(0, 45, len(images)))
    drawn = images.with_columns(number)
    return drawn.with_columns(cluster_id=pl.col("image_id").min().over("number")).filter(
        pl.len().over("cluster_id") > 1
    )


@pytest.fixture(scope="module")
def root(small_lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Copy the small lake, add pairs and clusters of two rules, and remove a few images from the split `main`."""
    copy = str(shutil.copytree(small_lake.root, tmp_path_factory.mktemp("review") / "lake"))
    images = small_lake.scan("images").select("image_id", "label", "dataset", "split").sort("image_id").collect()
    # A third label, and a missing one.
    drawn = np.random.default_rng(5).integers(0, 4, len(images))
    images = images.with_columns(label=pl.Series([("A", "B", "C", None)[number] for number in drawn]))
    clusters = random_clusters(images)
    add(copy, "pairs", RULE, random_pairs(images["image_id"].to_list(), 400))
    add(copy, "clusters", RULE, clusters)
    add(copy, "clusters", KEYS, clusters)
    add(copy, "clusters", LOOSE, clusters.head(0))
    _relabel(copy, images)
    splits = small_lake.scan("splits").collect().filter(pl.int_range(pl.len()) % 7 > 0)
    part = write_part(copy, "splits", {"split_name": "main"}, splits.to_arrow().cast(TABLES["splits"].schema))
    commit(copy, "splits", [part] if part else [], lambda _: True, Metadata("splits"))
    publish(copy, "", "pairs", read_meta(copy, "releases").units["recipe"])
    return copy


def _relabel(root: str, labels: pl.DataFrame) -> None:
    images = (
        Lake.working(Snapshot(root))
        .scan("images")
        .collect()
        .drop("label")
        .join(labels.select("image_id", "label"), on="image_id")
    )
    parts = []
    for key, rows in images.partition_by("dataset", "split", "shard", as_dict=True).items():
        table = rows.select(TABLES["images"].schema.names).to_arrow().cast(TABLES["images"].schema)
        parts.append(write_part(root, "images", dict(zip(("dataset", "split", "shard"), key, strict=True)), table))
    commit(root, "images", [part for part in parts if part], lambda _: True, Metadata("ingest"))


@cache
def facts(root: str, split: str | None) -> dict[bytes, Row]:
    lake = Lake(root)
    rows = lake.scan("images").select("image_id", "path", "label", "dataset", "split").collect().rows(named=True)
    drawn = dict(lake.scan("splits").select("image_id", "role").collect().rows())
    return {
        row["image_id"]: {
            **row,
            "role": f"{row['dataset']}/{row['split']}" if split is None else drawn.get(row["image_id"]),
        }
        for row in rows
    }


def matches(known: Mapping[bytes, Row], *, between: bool, conflicts: bool) -> Callable[[bytes, bytes], bool]:
    def differ(name: str, left: bytes, right: bytes) -> bool:
        both = {known[left][name], known[right][name]}
        return len(both) == 2 and None not in both

    return lambda left, right: (
        (not between or differ("role", left, right)) and (not conflicts or differ("label", left, right))
    )


@pytest.mark.quick_cases(8)
@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_pairs_are_those_of_brute_force(root: str, query: dict[str, Any]) -> None:
    best = query.get("best")
    known = facts(root, query["split"])
    wanted = matches(
        known,
        between=query.get("between", False) or best is not None,
        conflicts=query.get("conflicts", False),
    )
    pairs = Lake(root).scan("pairs").filter(rule=RULE).select("left_id", "right_id", "score").collect().rows()
    kept = [(score, left, right) for left, right, score in pairs if wanted(left, right)]
    if best:
        turned = [
            (s, a, b) for s, left, right in kept for a, b in ((left, right), (right, left)) if known[a]["role"] == best
        ]
        kept = list({a: (s, a, b) for s, a, b in sorted(turned, key=lambda t: (t[0], [-x for x in t[2]]))}.values())
    kept.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    for top in (1, 7, 10_000):
        review = review_pairs(Lake(root), ReviewQuery(RULE, top=top, **query))
        assert review.shown.select("score", "left_id", "right_id").rows() == kept[:top]
        assert (review.pairs, review.matching, review.from_clusters) == (len(pairs), len(kept), False)
    clusters = dict(Lake(root).scan("clusters").filter(rule=RULE).select("image_id", "cluster_id").collect().rows())
    for row in review.shown.rows(named=True):
        left, right = known[row["left_id"]], known[row["right_id"]]
        assert all(row[f"left_{name}"] == left[name] for name in ("path", "label", "role"))
        assert all(row[f"right_{name}"] == right[name] for name in ("path", "label", "role"))
        assert row["conflict"] == (None not in (left["label"], right["label"]) and left["label"] != right["label"])
        ours = clusters.get(row["left_id"])
        assert row["cluster_id"] == (ours if ours == clusters.get(row["right_id"]) else None)


@pytest.mark.parametrize("query", [asked for asked in QUERIES if len(asked) > 1], ids=str)
def test_a_rule_of_keys_shows_every_image_that_has_such_a_pair_in_its_cluster(root: str, query: dict[str, Any]) -> None:
    best = query.get("best")
    known = facts(root, query["split"])
    between = query.get("between", False) or best is not None
    wanted = matches(known, between=between, conflicts=query.get("conflicts", False))
    clusters = Lake(root).scan("clusters").filter(rule=KEYS).collect().group_by("cluster_id").agg("image_id")
    every = {pair for ids in clusters["image_id"] for pair in combinations(sorted(ids), 2) if wanted(*pair)}
    review = review_pairs(Lake(root), ReviewQuery(KEYS, top=100_000, **query))
    shown = set(review.shown.select("left_id", "right_id").rows())
    assert {tuple(sorted(pair)) for pair in shown} <= every
    involved = {one for pair in every for one in pair}
    if best:
        assert [row[0] for row in sorted(shown)] == sorted(one for one in involved if known[one]["role"] == best)
    else:
        assert {one for pair in shown for one in pair} == involved
    assert review.from_clusters
    assert set(review.shown["score"]) <= {1.0}
    assert review.matching == len(shown)


def test_a_rule_of_keys_shows_the_first_of_a_cluster_with_each(root: str) -> None:
    review = review_pairs(Lake(root), ReviewQuery(KEYS, top=100_000))
    rows = Lake(root).scan("clusters").filter(rule=KEYS).select("cluster_id", "image_id").collect().rows()
    assert review.shown.select("left_id", "right_id").rows() == sorted(row for row in rows if row[0] != row[1])
    assert review.pairs == review.matching == len(review.shown)
    assert review.shown["cluster_id"].to_list() == review.shown["left_id"].to_list()


def test_the_pairs_of_a_built_rule_are_shown_without_a_pairs_table(small_lake: Lake) -> None:
    review = review_pairs(small_lake, ReviewQuery("exact", split="main", best="test"))
    assert review.matching == 10
    assert {path.split("/")[-1][:4] for path in review.shown["left_path"]} == {"copy"}
    assert set(review.shown["right_role"]) == {"train"}


def test_a_rule_that_found_nothing_is_no_unknown_rule(root: str) -> None:
    review = review_pairs(Lake(root), ReviewQuery(LOOSE, between=True))
    assert (review.pairs, review.matching, len(review.shown)) == (0, 0, 0)
    assert review.headline == "No pairs between roles by cosine:0.5."
    shapes = review_clusters(Lake(root), ReviewQuery(LOOSE))
    assert (shapes.clusters, shapes.largest, shapes.diameter, len(shapes.shown)) == (0, 0, None, 0)


@pytest.mark.parametrize("look", [review_pairs, review_clusters])
def test_what_the_lake_does_not_have_is_named_with_the_nearest(
    root: str, look: Callable[[Lake, ReviewQuery], Any]
) -> None:
    with pytest.raises(LakeError, match=re.escape("no rule 'cosin:0.95'; did you mean 'cosine:0.95'?")):
        look(Lake(root), ReviewQuery("cosin:0.95"))
    with pytest.raises(LakeError, match=re.escape("no split 'mian'; did you mean 'main'? Splits: main.")):
        look(Lake(root), ReviewQuery(RULE, split="mian"))
    with pytest.raises(LakeError, match=re.escape("no role 'tset'; did you mean 'test'? Roles: test, train.")):
        look(Lake(root), ReviewQuery(RULE, split="main", best="tset"))


def test_headlines_say_what_is_shown_out_of_how_many(root: str) -> None:
    few = review_pairs(Lake(root), ReviewQuery(RULE, top=3, split="main", between=True, conflicts=True))
    assert few.headline == (
        f"3 of {few.matching:,} pairs between roles of split main with different labels by cosine:0.95, closest first;"
        f" {few.pairs:,} pairs in all."
    )
    assert (
        review_pairs(Lake(root), ReviewQuery(RULE, top=9999)).headline
        == f"All {few.pairs:,} pairs by cosine:0.95, closest first."
    )
    best = review_pairs(Lake(root), ReviewQuery(RULE, top=2, best="d/test"))
    assert best.headline == (
        f"2 of {best.matching:,} images of d/test that have a pair with another role by cosine:0.95,"
        " each with its closest, best first."
    )


def test_clusters_are_measured_and_described(root: str) -> None:
    shapes = review_clusters(Lake(root), ReviewQuery(RULE, split="main", top=4))
    known = facts(root, "main")
    members = Lake(root).scan("clusters").filter(rule=RULE).select("cluster_id", "image_id").sort("image_id").collect()
    by_cluster = {
        key[0]: rows["image_id"].to_list() for key, rows in members.group_by("cluster_id", maintain_order=True)
    }
    assert shapes.clusters == shapes.matching == len(by_cluster) == shapes.sizes["clusters"].sum()
    assert (shapes.sizes["images"] * shapes.sizes["clusters"]).sum() == len(members)
    assert shapes.largest == max(map(len, by_cluster.values())) == shapes.shown["images"][0]
    assert len(shapes.shown) == 4
    for row in shapes.shown.rows(named=True):
        ids = by_cluster[row["cluster_id"]]
        assert row["paths"] == [known[one]["path"] for one in ids[:3]]
        for name, counted in (("label", row["labels"]), ("role", row["roles"])):
            values = [known[one][name] for one in ids]
            assert {item["value"]: item["images"] for item in counted} == {one: values.count(one) for one in values}


@pytest.mark.parametrize(("asked", "name"), [({"between": True}, "role"), ({"conflicts": True}, "label")])
def test_clusters_of_one_role_or_label_are_left_out(root: str, asked: dict[str, Any], name: str) -> None:
    shapes = review_clusters(Lake(root), ReviewQuery(KEYS, split="main", top=1000, **asked))
    known = facts(root, "main")
    values: dict[bytes, set[Any]] = {}
    for cluster, image in (
        Lake(root).scan("clusters").filter(rule=KEYS).select("cluster_id", "image_id").collect().rows()
    ):
        values.setdefault(cluster, set()).add(known[image][name])
    assert set(shapes.shown["cluster_id"]) == {one for one, several in values.items() if len(several - {None}) > 1}
    assert shapes.matching < shapes.clusters == len(values)


def test_every_two_images_of_a_cluster_by_keys_are_a_pair(small_lake: Lake) -> None:
    shapes = review_clusters(small_lake, ReviewQuery("exact"))
    assert (shapes.clusters, shapes.diameter, shapes.exact) == (10, 1, True)
    assert shapes.shown.select("images", "pairs", "diameter", "lowest").unique().rows() == [(2, 1, 1, 1.0)]


def test_the_page_has_the_pictures_of_the_pairs_and_no_draft_is_left(root: str, tmp_path: Path) -> None:
    review = review_pairs(Lake(root), ReviewQuery(RULE, top=3))
    html = write_review(Lake(root), review, tmp_path / "look.html").read_text(encoding="utf-8")
    assert html.count("<article") == 3
    assert html.count("<img") == 9
    assert [file.name for file in tmp_path.iterdir()] == ["look.html"]
    with pytest.raises(LakeError, match="cannot be written there"):
        write_review(Lake(root), review, tmp_path / "none" / "look.html")
