"""Clusters with several labels: which label stands, who goes, and for whom."""

import polars as pl

from pipeline.recipe import SplitPart

_WINS = 2**31  # above any number of rows and any place in a list


def contradicting(spec: SplitPart, together: pl.DataFrame) -> pl.DataFrame:
    """Choose the rows that go because their cluster has several labels.

    Where one label stands, rows with another go, each for the first row of the label that stands. Where none does, all
    go, each for the first row with another label. So no cluster is left with two labels, unless its protected rows
    contradict themselves.

    - `drop`: no label stands.
    - `majority`: the most frequent one, counted in rows; of equally frequent ones none.
    - `trusted`: the one of the source in `trusted` that stands first there among the cluster's sources. None where that
      source itself has two, and none where no source of the cluster is listed: nobody can tell who is right.
    - Protected rows never go, so under the latter two their label stands, whatever others say; if they have two, none.
    - A row without a label contradicts nobody: it has no vote, makes no conflict and stays.

    Args:
        spec: the recipe's `[[split]]`; its `conflicts` is not "keep".
        together: kept rows of clusters: image_id, cluster_id, label, protected, trust; protected rows first, then by
            `keep` and rank.

    Returns:
        Columns image_id, keeper and why (always conflict): the rows that go.
    """
    said = together.drop_nulls("label").filter(pl.col("label").n_unique().over("cluster_id") > 1)
    stands = pl.col("stands")
    other = pl.col("label") != pl.col("first_label")
    return (
        said.join(_standing(spec, said), on="cluster_id", how="left", maintain_order="left")
        .with_columns(first_label=pl.col("label").first().over("cluster_id"))
        .with_columns(
            right=pl.col("image_id").filter(pl.col("label") == stands).first().over("cluster_id"),
            first=pl.col("image_id").first().over("cluster_id"),
            second=pl.col("image_id").filter(other).first().over("cluster_id"),
        )
        .filter(~pl.col("protected") & pl.col("label").ne_missing(stands))
        .select(
            "image_id",
            keeper=pl.coalesce("right", pl.when(other).then("first").otherwise("second")),
            why=pl.lit("conflict"),
        )
    )


def _standing(spec: SplitPart, said: pl.DataFrame) -> pl.DataFrame:
    """Find the label that stands: columns cluster_id and stands; no row where none does."""
    weight = {"majority": pl.len().cast(pl.Int64), "trusted": -pl.col("trust").min().cast(pl.Int64)}.get(spec.conflicts)
    if weight is None:
        return said.select("cluster_id", stands="label").clear()
    return (
        said.group_by("cluster_id", "label")
        .agg(weight=pl.when(pl.col("protected").any()).then(pl.lit(_WINS, pl.Int64)).otherwise(weight))
        .filter(pl.col("weight") == pl.col("weight").max().over("cluster_id"))
        .filter(pl.len().over("cluster_id") == 1)
        .select("cluster_id", stands="label")
    )
