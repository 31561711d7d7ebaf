"""clusters before x clusters after -> what became of them, counted."""

import polars as pl

_NOW = ("new", "grown", "merged", "shrunk", "changed", "same")
_BEFORE = ("divided", "gone")


def cluster_changes(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, int]:
    """Count what became of the clusters of a rule; what a cluster is called plays no part.

    Every cluster after is exactly one of these, so their sum is the number of clusters after:

    - new: no member was in a cluster before.
    - merged: members were in two clusters before, or more.
    - All others have members of exactly one cluster before:
        - same: all its members, and no others.
        - shrunk: some of its members, and no others. The rest may be in other clusters now, or in none.
        - grown: others too, and of its members all that are in any cluster now.
        - changed: others too, while some of its members are in another cluster now.

    A cluster before is at most one of these; a piece of a divided one is counted above as well:

    - divided: members are in two clusters now, or more.
    - gone: no member is in a cluster now.

    Args:
        before: columns cluster_id and image_id; an image is in one cluster at most.
        after: the same, later.

    Returns:
        The count of each: new, grown, merged, shrunk, changed, same, divided, gone, in this order.
    """
    then = before.select("image_id", was="cluster_id")
    images = after.select("image_id", now="cluster_id").join(then, on="image_id", how="full", coalesce=True)
    old = (
        images.filter(pl.col("was").is_not_null())
        .group_by("was")
        .agg(had=pl.len(), parts=pl.col("now").drop_nulls().n_unique())
    )
    origins = images.filter(pl.col("now").is_not_null()).group_by("now")
    known = pl.col("was").drop_nulls()
    new = origins.agg(has=pl.len(), added=pl.col("was").null_count(), origins=known.n_unique(), was=known.first()).join(
        old, on="was", how="left"
    )
    kind = (
        pl.when(pl.col("origins") == 0)
        .then(pl.lit("new"))
        .when(pl.col("origins") > 1)
        .then(pl.lit("merged"))
        .when(pl.col("added") == 0)
        .then(pl.when(pl.col("has") == pl.col("had")).then(pl.lit("same")).otherwise(pl.lit("shrunk")))
        .otherwise(pl.when(pl.col("parts") == 1).then(pl.lit("grown")).otherwise(pl.lit("changed")))
    )
    kinds = new.select(kind.alias("kind")).to_series()
    counts = {name: int((kinds == name).sum()) for name in _NOW}
    return counts | {"divided": int((old["parts"] > 1).sum()), "gone": int((old["parts"] == 0).sum())}


def say_changes(counts: dict[str, int]) -> str:
    """Say the changes to people, as "3 new, 12 grown, 2 merged".

    Args:
        counts: what `cluster_changes` returns.

    Returns:
        The counts above zero in its order, without those that are the same; "no change" where nothing is left.
    """
    said = [f"{count:,} {name}" for name, count in counts.items() if count and name != "same"]
    return ", ".join(said) or "no change"
