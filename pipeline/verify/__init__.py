"""Verify a lake: read every file, hash every image again, and check the laws of the tables."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipeline.engines import Engine
from pipeline.engines.local import HERE
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.progress import SILENT, Progress
from pipeline.verify.faults import Check, DamagedError, Fault, damage_errors
from pipeline.verify.laws import (
    RELEASES_CHECK,
    LawResult,
    attributes_are_of_images,
    check_releases,
    clusters_follow_from_index,
    drops_have_reasons,
    every_file_is_counted,
    ids_are_unique,
    issues_follow_from_measurements,
    measurements_are_of_pictures,
    no_cluster_straddles,
    pairs_are_of_images,
    predictions_follow_splits,
    roles_are_in_order,
    splits_name_images,
    verdicts_are_honoured,
)
from pipeline.verify.logs import check_logs
from pipeline.verify.references import merge_faults
from pipeline.verify.tables import check_tables, list_tables, newest_lake

__all__ = ["PRELOAD", "REPAIRABLE_KINDS", "Check", "Fault", "check_laws", "verify"]

# Modules that workers import when they start.
PRELOAD = ("pipeline.verify.pixels",)
# Kinds of faults that `imagelake build --repair` can repair.
REPAIRABLE_KINDS = frozenset({"missing", "size", "unreadable", "checksum", "columns", "rows", "changed", "law"})


class _Law(NamedTuple):
    name: str
    check: Callable[[Lake], LawResult]
    tables: Sequence[str]


_LAWS = (
    _Law("every file is one image or one reject", every_file_is_counted, ("shards", "images", "rejects")),
    _Law("image ids are unique", ids_are_unique, ("images",)),
    _Law("attributes are of images of their dataset", attributes_are_of_images, ("attributes", "images")),
    _Law(
        "clusters follow from index and pairs", clusters_follow_from_index, ("clusters", "index", "pairs", "verdicts")
    ),
    _Law("pairs are of two images of the lake, each once", pairs_are_of_images, ("pairs", "images")),
    _Law("measurements are of all pictures of the lake", measurements_are_of_pictures, ("measurements", "images")),
    _Law(
        "issues follow from measurements, and are of images of the lake",
        issues_follow_from_measurements,
        ("issues", "measurements", "images", "originals"),
    ),
    _Law("splits name images of the lake", splits_name_images, ("splits", "images")),
    _Law(
        "no cluster of sanitize, and no cluster or value of groups, is in two roles",
        no_cluster_straddles,
        ("splits", "clusters", "attributes", "originals"),
    ),
    _Law("roles are in the order of their attribute", roles_are_in_order, ("splits", "attributes", "originals")),
    _Law(
        "predictions name images of their split and a model of the lake",
        predictions_follow_splits,
        ("splits", "predictions", "models"),
    ),
    _Law("every dropped row names its rule, its image and its reason", drops_have_reasons, ("splits",)),
    _Law("verdicts are possible, and splits follow them", verdicts_are_honoured, ("verdicts", "splits", "images")),
)


def verify(root: str, *, references: bool = False, engine: Engine = HERE, progress: Progress = SILENT) -> list[Check]:
    """Check the newest release of a lake.

    Reads the log of every table, every file of the release, and every pixel, one row group at a time.

    Args:
        root: the lake's place.
        references: in a lake with `originals = "reference"`, read and hash the referenced files, too. By default only
            their sizes are compared.
        engine: where to run.
        progress: shows the progress.

    Returns:
        The checks with their faults. A law about tables that cannot be read has a fault of kind `unchecked`.

    Raises:
        NoReleaseError: the lake has no release.
        NewerLakeError: the lake was made by a newer imagelake.
        StorageError: a bucket does not answer.
    """
    snapshot = Snapshot(root)
    logs = check_logs(snapshot)
    damaged_logs = {fault.table for fault in logs.faults}
    releases = Check(RELEASES_CHECK, 0, []) if "releases" in damaged_logs else check_releases(snapshot)
    log_is_whole = "releases" not in damaged_logs
    lake = Lake.working(snapshot) if releases.faults else newest_lake(root, log_is_whole=log_is_whole)
    tables = list_tables(lake)
    # Faults of these logs are listed already.
    tables.faults = [fault for fault in tables.faults if fault.table not in damaged_logs]
    files = check_tables(tables, engine, progress, read_references=references)
    of_tables = [*files.checks[:2], *(check._replace(faults=merge_faults(check.faults)) for check in files.checks[2:])]
    progress.step("verify laws")
    return [logs, releases, *of_tables, *check_laws(lake, files.unreadable | damaged_logs)]


def check_laws(lake: Lake, unreadable: frozenset[str]) -> list[Check]:
    """Check the laws that can be checked from the tables alone.

    Args:
        lake: the lake, of a release or with all tables at their newest versions.
        unreadable: tables that cannot be read. A law about them is not checked, which is a fault.
    """
    return [_check_law(law, lake, [name for name in law.tables if name in unreadable]) for law in _LAWS]


def _check_law(law: _Law, lake: Lake, unreadable: Sequence[str]) -> Check:
    reason = f"because {' and '.join(unreadable)} cannot be read completely"
    try:
        if not unreadable:
            with damage_errors():
                return Check(law.name, *law.check(lake))
    except DamagedError as error:
        reason = f"because a table {error}"
    return Check(law.name, 0, [Fault("unchecked", f"cannot be checked, {reason}")])
