"""Apply the decisions of people to clusters: link what is the same, and keep apart what is different.

Clusters are made as always. Then those that a decision links are joined. Those that hold two pictures which a person
found different are made again: their links are taken one by one, the surest first, and a link that would unite two
different pictures is skipped.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
# Given images (columns image_id and picture, null if nothing was decided about it), returns the links of a rule between
# them: columns left_id, right_id and score.
Links = Callable[[pl.DataFrame], pl.DataFrame]

_ID = {"image_id": pl.Binary, "picture": pl.UInt32}
_PAIR = {"left": pl.UInt32, "right": pl.UInt32}


class Decided(NamedTuple):
    """Decisions about pairs of pictures. A picture is all images with one file digest.

    Attributes:
        images: columns image_id and picture (UInt32): every image of the pictures below.
        same: columns left and right (UInt32): pictures that are the same, left < right, each pair once.
        different: columns left and right: pictures that are different.
    """

    images: pl.DataFrame
    same: pl.DataFrame
    different: pl.DataFrame


NOTHING = Decided(pl.DataFrame(schema=_ID), pl.DataFrame(schema=_PAIR), pl.DataFrame(schema=_PAIR))


class Outcome(NamedTuple):
    """What decisions changed in the clusters of a rule, in pairs of pictures.

    Attributes:
        linked: decided to be the same, and in one cluster only because of that.
        apart: decided to be different, and not in one cluster only because of that.
        overruled: decided to be the same, but not in one cluster, as other decisions keep them apart.
    """

    linked: int = 0
    apart: int = 0
    overruled: int = 0


def apply_decisions(clusters: pl.DataFrame, decided: Decided, links: Links) -> tuple[pl.DataFrame, Outcome]:
    """Change the clusters of a rule by what people decided.

    In a cluster that holds two different pictures, links are taken in this order: copies of a picture, pairs that are
    the same, then the links of the rule by falling score; equal ones by the ids of their images. A link that would
    unite two different pictures is skipped.

    Args:
        clusters: columns cluster_id and image_id; an image is in one cluster at most.
        decided: the decisions.
        links: returns the links of the rule; those without a score are taken before all others.

    Returns:
        Columns cluster_id and image_id, ordered by both; then what was changed. A cluster that was changed is named by
        its smallest image_id.
    """
    clusters = clusters.select("cluster_id", "image_id")
    touched = clusters.join(decided.images, on="image_id", how="semi").select("cluster_id").unique()
    if touched.is_empty() and decided.same.is_empty():
        return clusters, Outcome()
    area = (
        clusters.join(touched, on="cluster_id", how="semi")
        .join(decided.images, on="image_id", how="full", coalesce=True)
        .sort("image_id")
        .with_row_index("node")
    )
    before = _numbers(area.select(pl.coalesce("cluster_id", "image_id").rank("dense") - 1).to_series())
    pictures = area.select("picture", "node").drop_nulls()
    same = _same_edges(pictures, decided.same)
    joined = _components(before, np.concatenate([same, _copies(pictures, before, decided.same)]))
    apart = _together(pictures, joined, decided.different)
    held = apart["set"].unique()
    after = joined
    if len(held):
        again = area.filter(pl.Series(np.isin(joined, held.to_numpy())))
        found = _rule_edges(area, links(again.select("image_id", "picture")))
        edges = np.concatenate([_copies(pictures, joined), same, found])
        inside = (joined[edges[:, 0]] == joined[edges[:, 1]]) & np.isin(joined[edges[:, 0]], held.to_numpy())
        # Sets of clusters that are made again start as single images.
        start = np.where(np.isin(joined, held.to_numpy()), len(area) + np.arange(len(area)), joined)
        after = _separate(edges[inside], apart.select("left_node", "right_node").to_numpy(), start)
    changed = _as_clusters(area, before, after)
    untouched = clusters.join(touched, on="cluster_id", how="anti")
    pairs = [_together(pictures, sets, decided.same).select("left", "right").unique() for sets in (before, after)]
    outcome = Outcome(
        len(pairs[1].join(pairs[0], on=["left", "right"], how="anti")),
        len(apart.select("left", "right").unique()),
        len(decided.same) - len(pairs[1]),
    )
    return pl.concat([untouched, changed]).sort("cluster_id", "image_id"), outcome


def without_different(pairs: pl.DataFrame, decided: Decided) -> pl.DataFrame:
    """Leave out pairs of images that people found different.

    Args:
        pairs: columns left_id and right_id.
        decided: the decisions.
    """
    if decided.different.is_empty():
        return pairs
    ends = pairs
    for side in ("left", "right"):
        pictures = decided.images.select(pl.col("image_id").alias(f"{side}_id"), pl.col("picture").alias(side))
        ends = ends.join(pictures, on=f"{side}_id", how="left", maintain_order="left")
    ordered = ends.with_columns(left=pl.min_horizontal("left", "right"), right=pl.max_horizontal("left", "right"))
    kept = ordered.join(decided.different, on=["left", "right"], how="anti", maintain_order="left")
    return kept.select(pairs.columns)


def key_links(index: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    """List the links of a rule with keys between some images, as few as lead to the same clusters as all of them.

    Images about which nothing was decided can be in any cluster, so that one link each is enough.

    Args:
        index: rows of the index table, of one rule; columns key, signature, image_id.
        images: columns image_id and picture (null if nothing was decided about it).

    Returns:
        Columns left_id, right_id and score (null): images with equal key and signature.
    """
    group = ["key", "signature"]
    rows = images.join(index.select(*group, "image_id"), on="image_id").sort("image_id")
    plain = rows.filter(pl.col("picture").is_null()).with_columns(first=pl.col("image_id").first().over(group))
    one_each = plain.filter(pl.col("image_id") != pl.col("first")).select(left_id="first", right_id="image_id")
    # Copies of a picture are linked in any case.
    few = pl.concat(
        [
            rows.drop_nulls("picture").unique(["picture", *group], keep="first"),
            plain.unique(group, keep="first").drop("first"),
        ]
    )
    all_of_few = few.join(few, on=group, suffix="_right").filter(pl.col("image_id") < pl.col("image_id_right"))
    found = pl.concat([one_each, all_of_few.select(left_id="image_id", right_id="image_id_right")])
    return found.with_columns(score=pl.lit(None, pl.Float32))


def _copies(pictures: pl.DataFrame, sets: Numbers, only: pl.DataFrame | None = None) -> Numbers:
    """Link the images of each picture within a set, or, with `only`, those of pictures in these pairs in any set."""
    of_set = pictures.with_columns(
        set=pl.lit(0, pl.Int64) if only is not None else pl.Series(sets[pictures["node"].to_numpy()])
    )
    if only is not None:
        of_set = of_set.filter(pl.col("picture").is_in(pl.concat([only["left"], only["right"]]).implode()))
    first = pl.col("node").min().over("picture", "set")
    return _edges(of_set.select(left=first, right="node").filter(pl.col("left") != pl.col("right")))


def _same_edges(pictures: pl.DataFrame, same: pl.DataFrame) -> Numbers:
    """Link the first images of pictures that are the same."""
    first = pictures.group_by("picture").agg(pl.min("node"))
    ends = same.join(first.rename({"node": "a"}), left_on="left", right_on="picture").join(
        first.rename({"node": "b"}), left_on="right", right_on="picture"
    )
    return _edges(ends.select(left=pl.min_horizontal("a", "b"), right=pl.max_horizontal("a", "b")))


def _rule_edges(area: pl.DataFrame, links: pl.DataFrame) -> Numbers:
    """Number the links of a rule, the surest first."""
    nodes = area.select("image_id", "node")
    numbered = links.join(nodes, left_on="left_id", right_on="image_id").join(
        nodes.rename({"node": "other"}), left_on="right_id", right_on="image_id"
    )
    ends = numbered.select("score", left=pl.min_horizontal("node", "other"), right=pl.max_horizontal("node", "other"))
    ordered = ends.sort("score", "left", "right", descending=[True, False, False], nulls_last=False)
    return ordered.select("left", "right").cast(pl.Int64).to_numpy()


def _edges(ends: pl.DataFrame) -> Numbers:
    return ends.select("left", "right").sort(pl.all()).cast(pl.Int64).to_numpy()


def _together(pictures: pl.DataFrame, sets: Numbers, pairs: pl.DataFrame) -> pl.DataFrame:
    """Find the pairs of pictures that have images in one set.

    Returns:
        Columns left, right (pictures), set, left_node and right_node: the first image of each in that set.
    """
    placed = (
        pictures.with_columns(set=pl.Series(sets[pictures["node"].to_numpy()], dtype=pl.Int64))
        .group_by("picture", "set")
        .agg(pl.min("node"))
    )
    left = pairs.join(placed.rename({"node": "left_node"}), left_on="left", right_on="picture")
    return left.join(placed.rename({"node": "right_node"}), left_on=["right", "set"], right_on=["picture", "set"])


def _separate(edges: Numbers, apart: Numbers, sets: Numbers) -> Numbers:
    """Take links in their order, and skip each that would unite two sets which must stay apart.

    Args:
        edges: (m, 2) nodes.
        apart: (k, 2) nodes that must not be in one set.
        sets: (n,) the set of each node at the start.

    Returns:
        (n,) the set of each node.
    """
    while True:
        ends, kept = sets[edges], sets[apart]
        forbidden = _codes(kept, len(sets))
        open_ = (ends[:, 0] != ends[:, 1]) & ~np.isin(_codes(ends, len(sets)), forbidden)
        edges = edges[open_]
        if not len(edges):
            return sets

        def unites(count: int, sets: Numbers = sets, edges: Numbers = edges) -> bool:
            found = _components(sets, edges[:count])
            return bool((found[apart[:, 0]] == found[apart[:, 1]]).any())

        # All links before the first that unites what must stay apart.
        count = len(edges) if not unites(len(edges)) else bisect_left(range(len(edges) + 1), x=True, key=unites) - 1
        sets = _components(sets, edges[:count])
        edges = edges[count:]


def _codes(pairs: Numbers, count: int) -> Numbers:
    """Return one number for each pair of sets, whatever its order."""
    codes: Numbers = pairs.min(axis=1) * (2 * count) + pairs.max(axis=1)
    return codes


def _components(sets: Numbers, edges: Numbers) -> Numbers:
    """Unite sets that are linked: (n,) the set of each node, numbered from 0."""
    from scipy.sparse import coo_array  # noqa: PLC0415 - slow to import, and only needed where people decided
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415 - as above

    names, dense = np.unique(sets, return_inverse=True)
    ends = dense[edges]
    graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(len(names), len(names)))
    united: Numbers = connected_components(graph, directed=False)[1].astype(np.int64)[dense]
    return united


def _as_clusters(area: pl.DataFrame, before: Numbers, after: Numbers) -> pl.DataFrame:
    """Return the sets of two images or more; one that is as before keeps its name."""
    rows = area.select("cluster_id", "image_id", before=pl.Series(before), after=pl.Series(after)).with_columns(
        size=pl.len().over("after"), old_size=pl.len().over("before")
    )
    as_before = (pl.col("before").n_unique().over("after") == 1) & (pl.col("size") == pl.col("old_size"))
    name = pl.when(as_before).then("cluster_id").otherwise(pl.col("image_id").min().over("after"))
    return rows.filter(pl.col("size") > 1).select(cluster_id=name, image_id="image_id")


def _numbers(column: pl.Series) -> Numbers:
    return column.cast(pl.Int64).to_numpy()
