"""What every table of a lake is: one module per table, and nothing but pyarrow.

`TABLES` maps a table's name to its `Table`. A lake written by a newer `VERSION` than this one is refused on opening.
"""

from schemas import bases, clusters, exports, images, index, misses, pairs, rejects, releases, scores, shards, splits
from schemas.table import Table, column

VERSION = 3

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        images.TABLE,
        rejects.TABLE,
        shards.TABLE,
        index.TABLE,
        bases.TABLE,
        pairs.TABLE,
        clusters.TABLE,
        splits.TABLE,
        scores.TABLE,
        misses.TABLE,
        releases.TABLE,
        exports.TABLE,
    )
}

__all__ = ["TABLES", "VERSION", "Table", "column"]
