"""Everything a report says about one release, as a plain dict: what tests assert on and templates draw.

The numbers a reader should see first, read off the rest of the summary.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import polars as pl

from pipeline.report.accuracy import accuracy_curves
from pipeline.report.clusters import (
    ClusterChoice,
    count_clusters,
    cross_roles,
    cross_sources,
    label_conflicts,
)
from pipeline.report.misses import choose_misses, ids_of, show_misses
from pipeline.report.pictures import Album, read_pictures, sum_classes
from pipeline.report.rules import known_rules
from pipeline.report.runs import describe_runs
from pipeline.report.sources import choose_samples, count_rejects, describe_classes, describe_sources
from pipeline.report.splits import Overlap, describe_splits, source_matrix, split_matrices

Summary = dict[str, Any]


def find_headline(summary: Summary) -> dict[str, Any]:
    """Pick the headline numbers.

    One split and one rule speak for all: the first split that was scored, else the first; the rule that
    dropped most of its rows, else the strictest.

    Args:
        summary: the summary without its headline.

    Returns:
        images, rejects, sources, rule (None without rules), redundant and conflicts (of that rule, None
        without one), overlap (split_name, role, other, images, of, after sanitizing; of sources, with
        split_name and after None, where no split is named; None where there are no two to compare), accuracy
        (model, split_name, train_size, original, sanitized, drop, by; None without both scores). Where sanitizing drops
        no test image, sanitized is by a rule, which `by` names, as far as it finds overlap with what the model may have
        been trained on.
    """
    scored = _last_scored(summary)
    split = _pick(summary["overlap"]["splits"], scored)
    rule = _rule(summary, split)
    counts: Summary = next((row for row in summary["clusters"] if row["rule"] == rule), {})
    return {
        "images": sum(source["images"] for source in summary["sources"]),
        "rejects": summary["rejects"]["total"],
        "sources": len(summary["sources"]),
        "rule": rule,
        "redundant": counts.get("redundant"),
        "conflicts": counts.get("conflicts"),
        "overlap": _overlap(split, summary["overlap"]["sources"], rule),
        "accuracy": scored and _by_rule(scored, rule),
    }


def _last_scored(summary: Summary) -> Summary | None:
    for curve in summary["accuracy"]:
        both = [p for p in curve["points"] if p["original"] is not None and p["sanitized"] is not None]
        if both:
            last = {name: both[-1][name] for name in ("train_size", "original", "sanitized")}
            drop = last["original"] - last["sanitized"]
            named = {"model": curve["model"], "split_name": curve["split_name"], **last, "drop": drop}
            told = [at for at in curve["leakage"] if at["train_size"] == last["train_size"]]
            return {**named, "rules": told[0]["rules"] if told and both[-1]["overlap"] is None else []}
    return None


def _by_rule(scored: Summary, rule: str | None) -> Summary:
    """Take the sanitized score by the rule where the split's own sanitizing leaves the test role whole."""
    kept = {name: value for name, value in scored.items() if name != "rules"}
    found = [row for row in scored["rules"] if row["rule"] == rule and rule and row["images"] and row["sanitized"]]
    if not found:
        return {**kept, "by": None}
    return {**kept, "by": rule, "sanitized": found[0]["sanitized"]["mean"], "drop": found[0]["leak"]["mean"]}


def _pick(splits: list[Summary], scored: Summary | None) -> Summary | None:
    named = [split for split in splits if scored and split["split_name"] == scored["split_name"]]
    return next(iter(named or splits), None)


def _rule(summary: Summary, split: Summary | None) -> str | None:
    rules = [row["rule"] for row in summary["clusters"]]
    drops = [s["dropped_by"] for s in summary["splits"] if split and s["split_name"] == split["split_name"]]
    sanitizing = [row["rule"] for rows in drops for row in rows if row["rule"] in rules]
    return next(iter(sanitizing or rules), None)


def _overlap(split: Summary | None, sources: Summary, rule: str | None) -> Summary | None:
    """Count images of the last role with a twin in the first.

    That is test in train, or valid in train where there is no test. Without a named split the two sources
    that share most stand in for roles.
    """
    square = split or sources
    last = len(square["roles"]) - 1
    if rule is None or last < 1:
        return None
    counts = next(row for row in square["rules"] if row["rule"] == rule)
    cells = counts["cells"]
    places = [(i, j) for i in range(last + 1) for j in range(last + 1) if i != j]
    i, j = (last, 0) if split else max(places, key=lambda place: cells[place[0]][place[1]])
    return {
        "split_name": split["split_name"] if split else None,
        "role": square["roles"][i],
        "other": square["roles"][j],
        "images": cells[i][j],
        "of": square["sizes"][i],
        "after": counts["kept_cells"][i][j] if split else None,
    }


Scan = Callable[[str], pl.LazyFrame]


def summarize(scan: Scan, *, lake: str, release: int, created_at: datetime | None, overlap: Overlap) -> dict[str, Any]:
    """Summarize one release of a lake.

    Deterministic: the order of rows in the tables does not matter. Of pixels only those of the pictures shown are
    unpacked; everything else is aggregated lazily.

    Args:
        scan: gives the LazyFrame of a table by its name, with the columns of `schemas.TABLES[name].schema`.
            Any table may be empty.
        lake: what to call the lake.
        release: number of the release that `scan` reads.
        created_at: when the release was finished; UTC if it has no time zone.
        overlap: counts overlap; takes clusters and members (image_id, role), returns (rule, role, other,
            images).

    Returns:
        A dict that JSON can hold; pictures are PNG data URIs. Keys: lake, release, created_at, headline,
        sources, classes, rejects, clusters, splits, overlap, crossing, conflicts, accuracy, runs, misses. README.md
        says what each holds.
    """
    images, clusters, splits = scan("images"), scan("clusters"), scan("splits")
    rules = known_rules(clusters, scan("index"))
    samples = choose_samples(images)
    split_facts = describe_splits(splits)
    names = [split["split_name"] for split in split_facts]
    crossing = cross_roles(clusters, images, splits, names) if names else cross_sources(clusters, images)
    conflicts = label_conflicts(clusters, images)

    accuracy = accuracy_curves(scan("scores"))
    runs = describe_runs(scan("scores"), accuracy)
    misses = choose_misses(scan("misses"), runs)

    album = Album.of(splits, samples["image_id"], crossing, conflicts, ids_of(misses))
    sums = sum_classes(images)
    album.fill(read_pictures(images, album.wanted))

    summary = {
        "lake": lake,
        "release": release,
        "created_at": _utc(created_at),
        "sources": describe_sources(images, scan("rejects"), scan("shards"), sums),
        "classes": describe_classes(sums, samples, album),
        "rejects": count_rejects(scan("rejects")),
        "clusters": count_clusters(clusters, rules),
        "splits": split_facts,
        "overlap": {
            "splits": [split_matrices(overlap, clusters, splits, split, rules) for split in split_facts],
            "sources": source_matrix(overlap, clusters, sums, rules),
        },
        "crossing": _dress(crossing, album, rules),
        "conflicts": _dress([conflicts], album, rules),
        "accuracy": accuracy,
        "runs": runs,
        "misses": show_misses(misses, album),
    }
    return {**summary, "headline": find_headline(summary)}


def _dress(choices: list[ClusterChoice], album: Album, rules: list[str]) -> list[dict[str, Any]]:
    """Put the chosen pictures in the place of their ids: one entry per choice and rule."""
    return [entry for choice in choices for rule in rules for entry in album.entries(choice, rule)]


def _utc(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="seconds")
