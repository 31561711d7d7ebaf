"""journal -> verdicts: put what people decided since the last build into the table `verdicts`."""

import polars as pl

import schemas
from pipeline import storage
from pipeline.builder.state import Todo
from pipeline.hashing import digest_of
from pipeline.lake.delta_log import Metadata
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit, Transaction, all_files
from pipeline.progress import plural
from pipeline.verdicts.journal import SCHEMA, TABLE, committed_verdicts, in_order, read_journal, write_copy


def plan_verdicts(snapshot: Snapshot) -> list[Todo]:
    """List what the next build would take from the journal.

    Args:
        snapshot: the lake.
    """
    return _todo(_new_rows(snapshot, [rows for _, rows in read_journal(snapshot.place)]))


def commit_verdicts(lake: Transaction) -> list[Todo]:
    """Commit the entries of the journal, then delete them. The table is written as one file, with a copy beside it.

    Raises:
        DamagedLakeError: an entry of the journal, or the table, cannot be read.
    """
    entries = read_journal(lake.place)
    new = _new_rows(lake.snapshot, [rows for _, rows in entries])
    if not new.is_empty():
        rows = in_order(pl.concat([committed_verdicts(lake.snapshot), new]))
        ids = digest_of(rows["verdict_id"].bin.encode("hex").to_list())
        written = lake.writer.write(TABLE, rows.to_arrow().cast(schemas.TABLES[TABLE].schema))
        metadata = Metadata(TABLE, {TABLE: {"fingerprint": ids, "rows": len(rows)}})
        lake.commit(Commit(TABLE, written, metadata, all_files))
    if entries:
        write_copy(lake.place, committed_verdicts(lake.snapshot))
        storage.delete(file for file, _ in entries)
    return _todo(new)


def _new_rows(snapshot: Snapshot, waiting: list[pl.DataFrame]) -> pl.DataFrame:
    """Leave out what a build has committed that was killed before it could delete the entries."""
    if not waiting:
        return SCHEMA.to_frame()
    return pl.concat(waiting).join(committed_verdicts(snapshot), on="verdict_id", how="anti")


def _todo(new: pl.DataFrame) -> list[Todo]:
    return [] if new.is_empty() else [Todo(TABLE, "journal", f"{plural(len(new), 'new verdict')}")]
