"""The releases table (the table versions of each finished build) and the exports table.

Neither table is part of a release: both are always read at their newest version.
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
            column("recipe_digest", pa.string(), "xxh3-128 of the parsed recipe; layout and comments do not change it"),
            column("created_at", pa.timestamp("us", tz="UTC"), "when the build finished", unit="UTC"),
            column("note", pa.string(), "summary of the build, as text for people"),
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
                "digest of release, split, form, rows and target; equal for equal exports",
            ),
            column("release", pa.int64(), "release that was exported; vacuum --keep-last keeps it"),
            column("split_name", pa.string(), "split that was exported"),
            column("roles", pa.string(), "roles that were exported, such as train, test"),
            column("form", pa.string(), "file format of the export, such as npz"),
            column("sanitized", pa.bool_(), "true if only the kept rows of the split were exported"),
            column("target", pa.string(), "path of the folder that the export was written to"),
            column("images", pa.int64(), "number of images in all roles", unit="images"),
            column("digest", pa.string(), "xxh3-128 of roles, ids and labels in their order, as in export.json"),
            column("created_at", pa.timestamp("us", tz="UTC"), "when the export finished", unit="UTC"),
        ]
    ),
)
