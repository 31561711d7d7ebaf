"""Delete files that no release needs: those of deleted releases, and old files that no commit names."""

from collections.abc import Collection, Mapping
from pathlib import Path

from deltalake.exceptions import DeltaError

import schemas
from pipeline import storage
from pipeline.errors import LakeError, one_line
from pipeline.lake.delta_log import DeltaLog
from pipeline.lake.parquet_writer import WRITER_LETTERS
from pipeline.lake.releases import list_releases
from pipeline.lake.transaction import Transaction
from pipeline.lake.writers.heartbeats import living_writers, unfinished_commits
from pipeline.os_errors import advice_for


def delete_unneeded_files(
    transaction: Transaction,
    *,
    older_than_hours: int,
    dry_run: bool,
    also: Mapping[str, int],
    without: Collection[int] = (),
) -> list[str]:
    """Delete the files that no release and no running build needs.

    Every version that a release names is kept whole, and so is the newest one. A file that no commit names may belong
    to a running build, so it is kept until it has some age.

    Args:
        transaction: of the lake.
        older_than_hours: age that a file must have to be deleted.
        dry_run: only list the files.
        also: versions to keep besides, by table.
        without: releases whose files are not kept: they are deleted, or in a dry run would be.

    Returns:
        Deleted files, relative to the lake's place, sorted.

    Raises:
        LakeError: the files of a table cannot be listed.
    """
    place, snapshot = transaction.place, transaction.snapshot
    kept = [
        {item["table"]: item["version"] for item in versions}
        for number, versions in list_releases(snapshot).select("release", "versions").rows()
        if number not in without
    ]
    deleted: list[str] = []
    for name in schemas.TABLES:
        table = snapshot.open(name)
        if table is None:
            continue
        needed = sorted(
            {versions[name] for versions in kept if name in versions}
            | {table.version(), also.get(name, table.version())}
        )
        # Delta only lists the files: a deletion by Delta would commit, and so make a release of no change.
        try:
            listed = table.vacuum(
                retention_hours=older_than_hours,
                dry_run=True,
                enforce_retention_duration=False,
                full=True,
                keep_versions=needed,
            )
        except DeltaError as error:
            advice = advice_for(error) or f"Run: imagelake verify {place}"
            raise LakeError(
                f"{place}/{name}: its files cannot be listed ({one_line(error, 300)}). Nothing of this table was "
                f"deleted. {advice}"
            ) from error
        deleted += [f"{name}/{path}" for path in listed]
        # The lock is held, so no commit is under way, whatever the age of the file.
        deleted += unfinished_commits(DeltaLog(place, name))
    # Delta lists files of old versions as long as its log does, deleted or not, and files of builds that decode.
    living, existing = living_writers(place), set(storage.list_files(place))
    deleted = [path for path in deleted if path in existing and Path(path).name[:WRITER_LETTERS] not in living]
    if not dry_run:
        storage.delete(f"{place}/{path}" for path in deleted)
    return sorted(deleted)
