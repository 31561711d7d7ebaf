"""Everything a report says about one release, as a plain dict: what tests assert on and templates draw."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import polars as pl

from pipeline.report.accuracy import accuracy_curves
from pipeline.report.album import Album
from pipeline.report.clusters import (
    ClusterChoice,
    count_clusters,
    cross_roles,
    cross_sources,
    label_conflicts,
)
from pipeline.report.headline import find_headline
from pipeline.report.matrices import Overlap, source_matrix, split_matrices
from pipeline.report.misses import choose_misses, ids_of, show_misses
from pipeline.report.rejects import count_rejects
from pipeline.report.rules import known_rules
from pipeline.report.runs import describe_runs
from pipeline.report.samples import choose_samples
from pipeline.report.sources import describe_classes, describe_sources
from pipeline.report.splits import describe_splits
from pipeline.report.walk import read_pictures, sum_classes

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
