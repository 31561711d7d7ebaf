"""Delete files that no release needs: those of builds that were killed, and those of releases that are given up."""

from collections.abc import Collection, Mapping
from pathlib import Path

import schemas
from pipeline import storage
from pipeline.lake.parquet_writer import WRITER_LETTERS
from pipeline.lake.releases import list_releases
from pipeline.lake.tables import open_table
from pipeline.lake.writers.heartbeats import living
from pipeline.lake.writers.orphan_files import unfinished_commits


def vacuum(
    root: str, *, older_than_hours: int, dry_run: bool, also: Mapping[str, int], without: Collection[int] = ()
) -> list[str]:
    """Delete what no release and no running build needs.

    Every version that a release names stays whole, and so does the newest one. A file that no commit names may belong
    to a build that is still running, so it stays until it has some age.

    Args:
        root: the lake's folder.
        older_than_hours: age that a file must have to go.
        dry_run: only list the files.
        also: versions to keep besides, by table.
        without: releases that do not count: they are given up, or in a dry run would be.

    Returns:
        Deleted files, relative to the lake's folder, sorted.
    """
    kept = [
        {item["table"]: item["version"] for item in versions}
        for number, versions in list_releases(root).select("release", "versions").rows()
        if number not in without
    ]
    deleted: list[str] = []
    for name in schemas.TABLES:
        table = open_table(root, name)
        if table is None:
            continue
        needed = sorted(
            {versions[name] for versions in kept if name in versions}
            | {table.version(), also.get(name, table.version())}
        )
        # Delta only names the files: its own deletion would commit, and so make a release of nothing new.
        deleted += [
            f"{name}/{path}"
            for path in table.vacuum(
                retention_hours=older_than_hours,
                dry_run=True,
                enforce_retention_duration=False,
                full=True,
                keep_versions=needed,
            )
        ]
        # The lock is held, so no commit is under way, whatever its age.
        deleted += unfinished_commits(root, name)
    # Delta names files of old versions for as long as its log does, deleted or not; and files of builds that decode.
    busy, there = living(root), set(storage.below(root))
    deleted = [path for path in deleted if path in there and Path(path).name[:WRITER_LETTERS] not in busy]
    if not dry_run:
        storage.delete(f"{root}/{path}" for path in deleted)
    return sorted(deleted)
