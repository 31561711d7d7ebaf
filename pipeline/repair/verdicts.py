"""Restore the verdicts of people, which nothing else can make again: from their copy, and from all files of the table.

The table is written as one file whenever verdicts are added. So the files of older versions hold nearly all of them.
"""

import polars as pl

from pipeline import storage
from pipeline.builder.state import Todo
from pipeline.errors import ImagelakeError
from pipeline.lake.rewrite import replace_rows
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Transaction
from pipeline.progress import plural
from pipeline.repair.damage import Damage
from pipeline.verdicts.journal import SCHEMA, TABLE, in_order, read_copies


def restore_verdicts(lake: Transaction, damage: Damage) -> tuple[list[Todo], list[str]]:
    """Restore the table if one of its files is damaged.

    Returns:
        What was restored; what is lost.
    """
    if not damage.remaining(lake.snapshot, TABLE):
        return [], []
    recorded = lake.snapshot.metadata(TABLE).units.get(TABLE, {}).get("rows", 0)
    rows = write_readable_verdicts(lake)
    done = [Todo("repair", TABLE, f"{plural(rows, 'verdict')} restored from their copy and the files that can be read")]
    lost = recorded - rows
    text = f"verdicts: {lost:,} of {recorded:,} are lost. Import them from a copy: imagelake verdicts import"
    return done, [text] if lost > 0 else []


def write_readable_verdicts(lake: Transaction) -> int:
    """Commit all verdicts that the copy, or any file in the folder of the table, has; return how many."""
    rows = in_order(pl.concat([SCHEMA.to_frame(), *read_copies(lake.place), *_readable(lake.place)]))
    replace_rows(lake, TABLE, rows, {TABLE: {"fingerprint": "", "rows": len(rows)}})
    return len(rows)


def _readable(place: str) -> list[pl.DataFrame]:
    snapshot = Snapshot(place)
    found = []
    for path in storage.list_files(f"{place}/{TABLE}", deep=False):
        if path.endswith(".parquet"):
            try:
                storage.check_files([f"{place}/{TABLE}/{path}"])
                found.append(snapshot.scan_files(TABLE, [path]).collect())
            except (ImagelakeError, OSError, pl.exceptions.PolarsError):
                continue
    return found
