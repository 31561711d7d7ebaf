"""Check what a lake promises: read every file, hash every pixel row again, and check the laws of the tables."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipeline.engines import Engine
from pipeline.engines.local import HERE
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.progress import SILENT, Progress
from pipeline.verify.faults import Check, DamagedError, Fault, Held, damage_named
from pipeline.verify.laws import (
    RELEASES_CHECK,
    clusters_follow_from_index,
    drops_have_reasons,
    every_file_is_counted,
    ids_are_unique,
    no_cluster_straddles,
    pairs_are_of_images,
    releases_match_commits,
    splits_name_images,
)
from pipeline.verify.logs import logs_are_whole
from pipeline.verify.tables import check_tables, list_tables, newest_lake

__all__ = ["PRELOAD", "REPAIRED", "Check", "Fault", "hold_laws", "verify"]

# What workers start with.
PRELOAD = ("pipeline.verify.pixels",)
# Kinds of faults that a build can repair.
REPAIRED = frozenset({"missing", "size", "unreadable", "checksum", "columns", "rows", "statistics", "changed", "law"})


class _Law(NamedTuple):
    name: str
    check: Callable[[Lake], Held]
    reads: Sequence[str]


_LAWS = (
    _Law("every file is one image or one reject", every_file_is_counted, ("shards", "images", "rejects")),
    _Law("image ids are unique", ids_are_unique, ("images",)),
    _Law("clusters follow from index and pairs", clusters_follow_from_index, ("clusters", "index", "pairs")),
    _Law("pairs are of two images of the lake, each once", pairs_are_of_images, ("pairs", "images")),
    _Law("splits name images of the lake", splits_name_images, ("splits", "images")),
    _Law("no cluster straddles two roles of a sanitized split", no_cluster_straddles, ("splits", "clusters")),
    _Law("every dropped row names its rule, its image and its reason", drops_have_reasons, ("splits",)),
)


def verify(root: str, *, engine: Engine = HERE, progress: Progress = SILENT) -> list[Check]:
    """Check the newest release of a lake.

    Reads the log of every table, every file that the release names, and every pixel, one row group at a time.

    Args:
        root: the lake's place.
        engine: where to run.
        progress: where to show it.

    Returns:
        What was checked, and what is wrong. Laws about tables that cannot be read say so as a fault.

    Raises:
        NoReleaseError: the lake has no release.
        NewerLakeError: the lake was made by a newer imagelake.
        StorageError: a bucket does not answer.
    """
    logs = logs_are_whole(root)
    known = {fault.table for fault in logs.faults}
    snapshot = Snapshot(root)
    releases = Check(RELEASES_CHECK, 0, []) if "releases" in known else releases_match_commits(snapshot)
    lake = Lake.working(snapshot) if releases.faults else newest_lake(root, sure="releases" not in known)
    tables = list_tables(lake)
    # Faults of these logs are listed already.
    tables.faults = [fault for fault in tables.faults if fault.table not in known]
    found = check_tables(tables, engine, progress)
    progress.step("verify laws")
    return [logs, releases, *found.checks, *hold_laws(lake, found.unread | known)]


def hold_laws(lake: Lake, unread: frozenset[str]) -> list[Check]:
    """Check the laws that can be checked at rest.

    Args:
        lake: the lake, as of a release or as it stands.
        unread: tables that cannot be read: a law about them is not checked, which is a fault.
    """
    return [_guarded(law, lake, [name for name in law.reads if name in unread]) for law in _LAWS]


def _guarded(law: _Law, lake: Lake, unread: Sequence[str]) -> Check:
    reason = f"as not all of {' and '.join(unread)} can be read"
    try:
        if not unread:
            with damage_named():
                return Check(law.name, *law.check(lake))
    except DamagedError as error:
        reason = f"as a table {error}"
    return Check(law.name, 0, [Fault("unchecked", f"cannot be checked, {reason}")])
