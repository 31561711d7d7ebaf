"""Measure the value that each check limits, from ids, labels and scores."""

import difflib
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

import polars as pl

from pipeline.dedup.stored_rules import read_clusters
from pipeline.errors import LakeError
from pipeline.labels import CORRECTED, label_in_split
from pipeline.lake.reads import check_values
from pipeline.lake.releases import list_releases
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.progress import plural
from pipeline.recipe.checks import (
    AccuracyPart,
    ClassesPart,
    ConflictsPart,
    DisagreementsPart,
    DriftPart,
    IssuesCheckPart,
    OverlapPart,
    RejectsPart,
)
from pipeline.recipe.rules import attribute_of
from pipeline.review import ReviewQuery
from pipeline.review.query import scan_rule, stored_rule
from pipeline.shard import REASONS
from pipeline.verdicts.journal import committed_verdicts
from pipeline.verdicts.standing import conflicts, resolve
from pipeline.verify.laws import linked_by

# Columns of the table images that are read.
IMAGE_COLUMNS = ("image_id", "path", "label")


class Measured(NamedTuple):
    """What was measured.

    Attributes:
        found: the value; None if there is nothing to compare with, so that the check is skipped.
        detail: the images or the class with this value, with an example; or why there is no value.
    """

    found: float | None
    detail: str


def _overlap(lake: Lake, check: OverlapPart) -> Measured:
    members = _members(lake, check.split, sanitized=check.sanitized)
    linked = _linked(lake, check.rule).join(members, on="image_id")
    leaks = linked.filter(pl.col("role").n_unique().over("cluster_id") > 1).unique(["cluster_id", "image_id"])
    rows = leaks.select("cluster_id", "image_id", "role").collect()
    images = rows["image_id"].n_unique()
    group = "value" if attribute_of(check.rule) else "cluster"
    counted = f"{plural(images, 'image')} in {plural(rows['cluster_id'].n_unique(), group)}"
    return Measured(images, f"{counted}{_example(lake, rows, 'role')}")


def _conflicts(lake: Lake, check: ConflictsPart) -> Measured:
    linked = _linked(lake, check.rule)
    if check.split is not None:
        linked = linked.join(_members(lake, check.split), on="image_id", how="semi")
    labels = _labels(lake, check.split)
    several = linked.join(labels, on="image_id").filter(pl.col("label").n_unique().over("cluster_id") > 1)
    rows = several.select("cluster_id", "image_id", "label").collect()
    clusters = rows["cluster_id"].n_unique()
    return Measured(clusters, f"{plural(clusters, 'cluster')}{_example(lake, rows, 'label')}")


def _rejects(lake: Lake, check: RejectsPart) -> Measured:
    rows = lake.scan("rejects")
    if check.reason is not None:
        _require("reason", check.reason, REASONS, "imagelake")
        rows = rows.filter(reason=check.reason)
    found = rows.select("reason", "dataset", "split", "path").collect().sort("dataset", "split", "path")
    counts = found.group_by("reason").len().sort("len", "reason", descending=[True, False]).rows()
    first = [f"; such as {dataset}/{split} {path}" for _, dataset, split, path in found.head(1).rows()]
    return Measured(len(found), ", ".join(f"{count:,} {reason}" for reason, count in counts) + "".join(first))


def _min_per_class(lake: Lake, check: ClassesPart) -> Measured:
    counts = _class_counts(lake, check.split)
    if check.role is not None:
        _require("role", check.role, counts["role"].unique(), f"split '{check.split}' of {lake.root}")
        counts = counts.filter(role=check.role)
    if counts.is_empty():
        raise LakeError(f"{lake.root} has no labelled image{f' in split {check.split!r}' if check.split else ''}.")
    fewest = counts.sort("images", "role", "label").row(0, named=True)
    role = f" in {fewest['role']}" if check.split else ""
    more = int((counts["images"] < check.limit).sum()) - 1
    others = f", and {plural(more, 'other class has', 'other classes have')} too few" if more > 0 else ""
    return Measured(fewest["images"], f"class {fewest['label']} has {plural(fewest['images'], 'image')}{role}{others}")


def _drift(lake: Lake, check: DriftPart) -> Measured:
    counts = _class_counts(lake, check.split)
    if check.against == "roles":
        return _largest_difference(counts.with_columns(side=pl.format("in {}", "role"), group=pl.lit("")))
    earlier = list_releases(Snapshot(lake.root)).filter(pl.col("release") < lake.release)["release"].to_list()
    if not earlier:
        gone = f"release {lake.release - 1} was deleted by vacuum, and" if lake.release > 1 else ""
        return Measured(None, f"{gone} there is no release before".strip())
    before = lake.at(earlier[-1])
    before.check("splits")
    check_values(before.snapshot, "images", IMAGE_COLUMNS)
    if check.split is not None and check.split not in _splits(before):
        return Measured(None, f"release {before.release} has no split {check.split}")
    old = _class_counts(before, check.split)
    both = [
        counts.join(old, on="role", how="semi").with_columns(side=pl.lit("now"), group="role"),
        old.join(counts, on="role", how="semi").with_columns(side=pl.lit("before"), group="role"),
    ]
    if both[0].is_empty():
        return Measured(None, f"release {before.release} has no labelled image in these roles")
    return _largest_difference(pl.concat(both))


def _accuracy(lake: Lake, check: AccuracyPart) -> Measured:
    whole = pl.all_horizontal(pl.col("label", "predicted", "point", "rule").is_null())
    of_test = (pl.col("role").fill_null("test") == "test") & (pl.col("eval_on") == "sanitized")
    scores = lake.scan("scores").filter(whole, metric="accuracy").collect()
    _require("split with a baseline", check.split, scores["split_name"].unique(), lake.root)
    scores = scores.filter(split_name=check.split)
    _require("model", check.model, scores["model"].unique(), f"split '{check.split}' of {lake.root}")
    rows = scores.filter(of_test, pl.col("value").is_not_nan(), model=check.model)
    largest = rows.filter(pl.col("train_size") == pl.col("train_size").max().over("settings"))
    means = largest.group_by("settings", "train_size").agg(pl.mean("value")).sort("value", "settings", nulls_last=True)
    if means.is_empty():
        raise LakeError(
            f"{lake.root} has no accuracy of {check.model} on the test role of split '{check.split}'. Give the split a "
            "test role with labels, and build."
        )
    _, size, value = means.row(0)
    return Measured(value, f"{value:.4f} after training on {plural(size, 'image')}")


def _disagreements(lake: Lake, _: DisagreementsPart) -> Measured:
    rows = conflicts(committed_verdicts(lake.snapshot))
    subject = [pl.coalesce("file_digest", "content_hash"), pl.coalesce("other_file_digest", "other_content_hash")]
    count = rows.select(pl.struct(subject).n_unique()).item() if len(rows) else 0
    first = [
        f"; such as {row['who']}: {row['verdict']} of {(row['file_digest'] or row['content_hash']).hex()}"
        for row in rows.head(1).to_dicts()
    ]
    return Measured(count, f"{plural(count, 'picture or pair', 'pictures or pairs')}{''.join(first)}")


def _issues(lake: Lake, check: IssuesCheckPart) -> Measured:
    listed = lake.snapshot.metadata("issues").units
    if check.issue is not None:
        _require("issue", check.issue, listed, lake.root)
    elif not listed:
        raise LakeError(f"{lake.root} lists no issues. Add an [issues] to the recipe, which may be empty, and build.")
    rows, images = lake.scan("issues"), lake.scan("images").select("image_id")
    if check.issue is not None:
        rows = rows.filter(kind=check.issue)
    if check.split is not None:
        images = _members(lake, check.split).select("image_id")
    found = rows.join(images, on="image_id", how="semi").select("image_id", "kind", "score").collect()
    count, total = found["image_id"].n_unique(), images.select(pl.len()).collect().item()
    kinds = found.group_by("kind").len().sort("len", "kind", descending=[True, False]).rows()
    first = found.sort("score", "image_id", descending=[True, False]).head(1).lazy()
    paths = first.join(lake.scan("images"), on="image_id").select("dataset", "split", "path").collect().rows()
    such = "".join(f"; such as {dataset}/{split} {path}" for dataset, split, path in paths)
    detail = f"{', '.join(f'{number:,} {kind}' for kind, number in kinds)}{such}"
    return Measured(count / max(total, 1) if isinstance(check.issues, float) else count, detail)


# By the key that chooses a check, the function that measures it.
MEASURES: Mapping[str, Callable[[Lake, Any], Measured]] = {
    "overlap": _overlap,
    "conflicts": _conflicts,
    "rejects": _rejects,
    "min_per_class": _min_per_class,
    "drift": _drift,
    "accuracy": _accuracy,
    "disagreements": _disagreements,
    "issues": _issues,
}


def _linked(lake: Lake, rule: str) -> pl.LazyFrame:
    """Scan the clusters of a rule, or the images with equal values of an attribute: columns cluster_id and image_id.

    Raises:
        LakeError: the lake has no such rule or attribute.
    """
    attribute = attribute_of(rule)
    if attribute is None:
        stored = stored_rule(lake, ReviewQuery(rule))
        of_rule = lake.snapshot.files("index", lambda partition: partition["rule"] == stored.rule)
        check_values(lake.snapshot, "index", ["image_id", "key", "signature"], of_rule)
        return read_clusters(stored, partial(scan_rule, lake), resolve(lake.snapshot).decided).select(
            "cluster_id", "image_id"
        )
    check_values(lake.snapshot, "originals", ["image_id", attribute])
    linked = linked_by(lake, rule, {})
    if linked.head(1).collect().is_empty():
        known = lake.scan("attributes").select(pl.col("name").unique()).collect()["name"]
        _require("attribute", attribute, known, lake.root)
    return linked


def _splits(lake: Lake) -> Collection[str]:
    return lake.scan("splits").select(pl.col("split_name").unique()).collect()["split_name"].to_list()


def _members(lake: Lake, split: str, *, sanitized: bool = True) -> pl.LazyFrame:
    """Scan the images that a split keeps, or all that it has: columns image_id and role."""
    _require("split", split, _splits(lake), lake.root)
    rows = lake.scan("splits").filter(split_name=split)
    return rows.filter("kept" if sanitized else pl.lit(value=True)).select("image_id", "role")


def _labels(lake: Lake, split: str | None) -> pl.LazyFrame:
    """Scan the labels of images, or those that they have in a split: columns image_id and label, without null."""
    labels = lake.scan("images").select("image_id", "label")
    if split is not None:
        corrected = lake.scan("splits").filter(split_name=split).select("image_id", *CORRECTED)
        labels = labels.join(corrected, on="image_id").select("image_id", label_in_split())
    return labels.drop_nulls()


def _class_counts(lake: Lake, split: str | None) -> pl.DataFrame:
    """Count the images of every class: columns role, label, images, one row for every role and class, also for none.

    Args:
        lake: the lake of a release.
        split: count the images that this split keeps, by role, of all classes that it has before sanitizing; None for
            all images of the lake, with an empty role.
    """
    labels = _labels(lake, split)
    if split is None:
        counts = (
            labels.group_by("label")
            .agg(images=pl.len().cast(pl.Int64))
            .select(role=pl.lit(""), label="label", images="images")
        )
        return counts.collect(engine="streaming")
    _require("split", split, _splits(lake), lake.root)
    rows = lake.scan("splits").filter(split_name=split).select("image_id", "role", "kept")
    counted = rows.join(labels, on="image_id").group_by("role", "label").agg(images=pl.col("kept").sum().cast(pl.Int64))
    found = counted.collect(engine="streaming")
    # Every role has a row of every class.
    every = rows.select("role").unique().collect().join(found.select("label").unique(), how="cross")
    return every.join(found, on=["role", "label"], how="left").with_columns(pl.col("images").fill_null(0))


def _largest_difference(counts: pl.DataFrame) -> Measured:
    """Find the class whose share differs most between two sides of a group.

    Args:
        counts: columns group (the sides of each group are compared), side (a role, or "now" and "before"), label,
            images.
    """
    every = counts.select("group", "side").unique().join(counts.select("group", "label").unique(), on="group")
    full = every.join(counts.select("group", "side", "label", "images"), on=["group", "side", "label"], how="left")
    shares = full.with_columns(pl.col("images").fill_null(0)).with_columns(
        share=pl.col("images") / pl.col("images").sum().over("group", "side")
    )
    # A role whose images are all dropped has no shares.
    by_class = (
        shares.filter(pl.col("share").is_not_nan())
        .sort("share", "side")
        .group_by("group", "label", maintain_order=True)
    )
    ends = by_class.agg(
        low="share", high="share", low_side=pl.col("side").first(), high_side=pl.col("side").last()
    ).with_columns(pl.col("low").list.first(), pl.col("high").list.last())
    worst = ends.with_columns(drift=(pl.col("high") - pl.col("low")).round(12)).sort(
        "drift", "group", "label", descending=[True, False, False]
    )
    if worst.is_empty():
        return Measured(None, "no labelled image")
    row = worst.row(0, named=True)
    of_role = f" of {row['group']}" if row["group"] else ""
    return Measured(
        row["drift"],
        f"class {row['label']}: {row['low']:.1%}{of_role} {row['low_side']}, {row['high']:.1%} {row['high_side']}",
    )


def _example(lake: Lake, rows: pl.DataFrame, column: str) -> str:
    """Name two images of the first cluster that differ in a column; empty without rows."""
    if rows.is_empty():
        return ""
    first = rows.filter(pl.col("cluster_id") == rows["cluster_id"].min())
    two = first.sort("image_id").unique(column, keep="first", maintain_order=True).head(2)
    paths = lake.scan("images").select("image_id", "path").join(two.lazy(), on="image_id").sort(column).collect()
    return "; such as " + " and ".join(f"{path} ({value})" for path, value in paths.select("path", column).rows())


def _require(what: str, name: str, known: Collection[str], where: str) -> None:
    """Check that a name is known.

    Raises:
        LakeError: it is not; the message has the nearest name.
    """
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    raise LakeError(f"{where} has no {what} '{name}'{hint} There are: {', '.join(sorted(known)) or 'none'}.")
