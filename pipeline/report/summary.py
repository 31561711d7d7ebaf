"""Summarize a release as a plain dict: tests check it, and templates render it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import polars as pl

from pipeline.report.accuracy import accuracy_curves, compare_models
from pipeline.report.issues import choose_issues, draw_issues
from pipeline.report.misses import choose_misses, draw_misses, image_ids_of
from pipeline.report.overlap import (
    ClusterChoice,
    Overlap,
    choose_clusters,
    choose_label_conflicts,
    count_clusters,
    describe_splits,
    known_rules,
    source_matrix,
    split_matrices,
)
from pipeline.report.pictures import Pictures
from pipeline.report.roles import choose_role_samples, describe_roles, sum_roles
from pipeline.report.runs import describe_runs
from pipeline.report.sources import choose_samples, count_rejects, describe_classes, describe_sources, sum_classes

Summary = dict[str, Any]
Scan = Callable[[str], pl.LazyFrame]


def summarize(  # noqa: PLR0913 - what a report is made of
    scan: Scan,
    *,
    lake: str,
    release: int,
    created_at: datetime | None,
    overlap: Overlap,
    attributes: Summary | None = None,
) -> Summary:
    """Summarize one release of a lake.

    The result does not depend on the order of rows in the tables. Pixels are unpacked only for the images shown;
    everything else is aggregated lazily.

    Args:
        scan: returns the LazyFrame of a table by its name, with the columns of `schemas.TABLES[name].schema`. Any table
            may be empty.
        lake: the name of the lake in the report.
        release: number of the release that `scan` reads.
        created_at: when the release was finished; UTC if it has no time zone.
        attributes: the attributes of the lake: datasets (a list of dataset, images, attributes, notes) and
            across (a list of attribute, rule, clusters, images, note); None for a lake without any.
        overlap: counts overlap; takes clusters and members (image_id, role), returns (rule, role, other, images).

    Returns:
        A dict of JSON values; pictures are PNG data URIs. Keys: lake, release, created_at, headline, sources, classes,
        rejects, clusters, splits, roles, overlap, crossing, repeats, conflicts, issues, models, accuracy, runs,
        misses, attributes.
        README.md describes them.
    """
    images, clusters, splits = scan("images"), scan("clusters"), scan("splits")
    rules = known_rules(clusters, scan("index"))
    samples = choose_samples(images)
    described_splits = describe_splits(splits)
    names = [split["split_name"] for split in described_splits]
    role_samples = choose_role_samples(splits, len(names))
    accuracy = accuracy_curves(scan("scores"))
    runs = describe_runs(scan("scores"), accuracy)
    misses = choose_misses(scan("misses"), runs)

    crossing = choose_clusters(clusters, images, splits, names)
    repeats = choose_clusters(clusters, images, splits, names, repeats=True)
    scored = _best_scored(accuracy)
    shown_split = scored["split_name"] if scored and scored["split_name"] in names else next(iter(names), None)
    conflicts = choose_label_conflicts(clusters, images, splits, shown_split)

    issues = choose_issues(scan("issues"))
    sampled = pl.concat(
        [samples["image_id"], *(rows["image_id"].explode().cast(pl.Binary) for rows in (role_samples, issues))]
    )
    pictures = Pictures.collect(splits, sampled, [*crossing, *repeats, conflicts], image_ids_of(misses))
    sums = sum_classes(images)
    pictures.fill(images)

    summary = {
        "lake": lake,
        "release": release,
        "created_at": _to_utc(created_at),
        "sources": describe_sources(images, scan("rejects"), scan("shards"), sums),
        "classes": describe_classes(sums, samples, pictures),
        "rejects": count_rejects(scan("rejects")),
        "clusters": count_clusters(clusters, rules),
        "splits": described_splits,
        "roles": describe_roles(described_splits, sum_roles(images, splits, names), role_samples, pictures),
        "overlap": {
            "splits": [split_matrices(overlap, clusters, splits, split, rules) for split in described_splits],
            "sources": source_matrix(overlap, clusters, sums, rules),
        },
        "crossing": _draw_clusters(crossing, pictures, rules),
        "repeats": _draw_clusters(repeats, pictures, rules),
        "conflicts": _draw_clusters([conflicts], pictures, rules),
        "issues": draw_issues(issues, pictures),
        "models": compare_models(accuracy),
        "accuracy": accuracy,
        "runs": runs,
        "misses": draw_misses(misses, pictures),
        "attributes": attributes or {"datasets": [], "across": []},
    }
    return {**summary, "headline": find_headline(summary)}


def find_headline(summary: Summary) -> dict[str, Any]:
    """Choose the numbers to show first.

    They are of one split and one rule: the split of the best model, else the first split; the rule that dropped most
    of its rows, else the strictest rule. The best model has the highest accuracy on the sanitized test role. Models for
    all classes come before those that detect one class, and dummies are left out.

    Returns:
        images, rejects, sources, rule (None without rules), redundant and conflicts (of that rule, None without one),
        overlap (split_name, role, other, images, of, after sanitizing; of sources, with split_name and after None, if
        no split is named; None if there are no two to compare), accuracy (model, positive, of, split_name, train_size,
        original, sanitized, drop, by; None without both scores; `of` is the number of models that it is the best of).
        If sanitizing drops no test image, the sanitized score is that
        without the overlap of a rule, which `by` names, with images that the model may have been trained on.
    """
    scored = _best_scored(summary["accuracy"])
    split = _headline_split(summary["overlap"]["splits"], scored)
    rule = _headline_rule(summary, split)
    counts: Summary = next((row for row in summary["clusters"] if row["rule"] == rule), {})
    return {
        "images": sum(source["images"] for source in summary["sources"]),
        "rejects": summary["rejects"]["total"],
        "sources": len(summary["sources"]),
        "rule": rule,
        "redundant": counts.get("redundant"),
        "conflicts": counts.get("conflicts"),
        "overlap": _headline_overlap(split, summary["overlap"]["sources"], rule),
        "accuracy": scored and _headline_accuracy(scored, rule),
    }


def _best_scored(accuracy: list[Summary]) -> Summary | None:
    """Find the best model with original and sanitized scores, each model at its largest train size with both."""
    scored = [found for curve in accuracy if not curve["dummy"] and (found := _largest_scored(curve))]
    if not scored:
        return None
    best = max(scored, key=lambda one: (one["positive"] is None, one["sanitized"], one["original"]))
    group = [one for one in scored if all(one[name] == best[name] for name in ("split_name", "positive"))]
    return {**best, "of": len(group)}


def _largest_scored(curve: Summary) -> Summary | None:
    both = [p for p in curve["points"] if p["original"] is not None and p["sanitized"] is not None]
    if not both:
        return None
    last = {name: both[-1][name] for name in ("train_size", "original", "sanitized")}
    at_size = [leak for leak in curve["leakage"] if leak["train_size"] == last["train_size"]]
    return {
        **{name: curve[name] for name in ("model", "positive", "split_name")},
        **last,
        "drop": last["original"] - last["sanitized"],
        "rules": at_size[0]["rules"] if at_size and both[-1]["overlap"] is None else [],
    }


def _headline_accuracy(scored: Summary, rule: str | None) -> Summary:
    """Use the sanitized score by the rule if the split's own sanitizing drops no test image."""
    result = {name: value for name, value in scored.items() if name != "rules"}
    by_rule = [row for row in scored["rules"] if row["rule"] == rule and rule and row["images"] and row["sanitized"]]
    if not by_rule:
        return {**result, "by": None}
    return {**result, "by": rule, "sanitized": by_rule[0]["sanitized"]["mean"], "drop": by_rule[0]["leak"]["mean"]}


def _headline_split(splits: list[Summary], scored: Summary | None) -> Summary | None:
    of_score = [split for split in splits if scored and split["split_name"] == scored["split_name"]]
    return next(iter(of_score or splits), None)


def _headline_rule(summary: Summary, split: Summary | None) -> str | None:
    rules = [row["rule"] for row in summary["clusters"]]
    drops = [s["dropped_by"] for s in summary["splits"] if split and s["split_name"] == split["split_name"]]
    sanitizing = [row["rule"] for rows in drops for row in rows if row["rule"] in rules]
    return next(iter(sanitizing or rules), None)


def _headline_overlap(split: Summary | None, sources: Summary, rule: str | None) -> Summary | None:
    """Count the images of the last role that have a duplicate in the first.

    That is test in train, or valid in train if there is no test. Without a named split, the two sources with the
    largest overlap are used instead of roles.
    """
    matrices = split or sources
    last = len(matrices["roles"]) - 1
    if rule is None or last < 1:
        return None
    counts = next(row for row in matrices["rules"] if row["rule"] == rule)
    cells = counts["cells"]
    off_diagonal = [(i, j) for i in range(last + 1) for j in range(last + 1) if i != j]
    i, j = (last, 0) if split else max(off_diagonal, key=lambda cell: cells[cell[0]][cell[1]])
    return {
        "split_name": split["split_name"] if split else None,
        "role": matrices["roles"][i],
        "other": matrices["roles"][j],
        "images": cells[i][j],
        "of": matrices["sizes"][i],
        "after": counts["kept_cells"][i][j] if split else None,
    }


def _draw_clusters(choices: list[ClusterChoice], pictures: Pictures, rules: list[str]) -> list[dict[str, Any]]:
    return [entry for choice in choices for rule in rules for entry in pictures.clusters(choice, rule)]


def _to_utc(time: datetime | None) -> str | None:
    if time is None:
        return None
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="seconds")
