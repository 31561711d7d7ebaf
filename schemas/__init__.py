"""Declares every table of a lake, with documented columns. Depends on pyarrow only.

`TABLES` maps the name of a table to its `Table`. A lake with a `VERSION` above this one cannot be opened.
"""

from schemas.attributes import ATTRIBUTES
from schemas.baselines import MISSES, MODELS, PREDICTIONS, SCORES
from schemas.dedup import BASES, CLUSTERS, INDEX, PAIRS
from schemas.images import IMAGES, ORIGINALS, REJECTS, SHARDS
from schemas.issues import ISSUES, MEASUREMENTS
from schemas.releases import EXPORTS, RELEASES
from schemas.splits import SPLITS
from schemas.table import Table, column
from schemas.verdicts import VERDICTS

VERSION = 5

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        IMAGES,
        ORIGINALS,
        REJECTS,
        SHARDS,
        ATTRIBUTES,
        INDEX,
        BASES,
        PAIRS,
        CLUSTERS,
        MEASUREMENTS,
        ISSUES,
        SPLITS,
        SCORES,
        MISSES,
        MODELS,
        PREDICTIONS,
        VERDICTS,
        RELEASES,
        EXPORTS,
    )
}

__all__ = ["TABLES", "VERSION", "Table", "column"]
