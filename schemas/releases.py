"""One row per finished build: the version of every table that belongs to it.

One row per export: which release it was made of. Not part of a release itself: it is read at its newest version.
"""

import pyarrow as pa

from schemas.table import Table, column

VERSIONS = pa.list_(pa.struct([pa.field("table", pa.string()), pa.field("version", pa.int64())]))

RELEASES = Table(
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

EXPORTS = Table(
    name="exports",
    doc="one row per export",
    released=False,
    schema=pa.schema(
        [
            column(
                "export_id",
                pa.string(),
                "digest of release, split, form, rows and target: the same for the same export",
            ),
            column("release", pa.int64(), "release the export was made of: vacuum --keep-last keeps it"),
            column("split_name", pa.string(), "split that was exported"),
            column("roles", pa.string(), "roles that were exported, such as train, test"),
            column("form", pa.string(), "form of the files, such as npz"),
            column("sanitized", pa.bool_(), "whether only the rows that sanitizing kept were exported"),
            column("target", pa.string(), "folder that was written to, as it was then"),
            column("images", pa.int64(), "images in all roles", unit="images"),
            column("digest", pa.string(), "xxh3-128 over roles, ids and labels in their order, as in export.json"),
            column("created_at", pa.timestamp("us", tz="UTC"), "when the export finished", unit="UTC"),
        ]
    ),
)
