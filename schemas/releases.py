"""One row per finished build: the version of every table that belongs to it."""

import pyarrow as pa

from schemas.table import Table, column

VERSIONS = pa.list_(pa.struct([pa.field("table", pa.string()), pa.field("version", pa.int64())]))

TABLE = Table(
    name="releases",
    doc="one row per finished build",
    released=False,
    schema=pa.schema(
        [
            column("release", pa.int64(), "number of the release, counting from 1"),
            column("versions", VERSIONS, "Delta version of every table in this release"),
            column("recipe_digest", pa.string(), "xxh3-128 of the recipe's meaning, not of its spelling"),
            column("created_at", pa.timestamp("us", tz="UTC"), "when the build finished", unit="UTC"),
            column("note", pa.string(), "what the build did, for a person"),
        ]
    ),
)
