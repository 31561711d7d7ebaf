"""One row per export: which release it was made of. Not part of a release itself: it is read at its newest version."""

import pyarrow as pa

from schemas.table import Table, column

TABLE = Table(
    name="exports",
    doc="one row per export",
    schema=pa.schema(
        [
            column("export_id", pa.string(), "digest of the release, the split, the form and the target"),
            column("release", pa.int64(), "release the export was made of: vacuum keeps it"),
            column("split_name", pa.string(), "split that was exported"),
            column("form", pa.string(), "form of the files, such as npz"),
            column("sanitized", pa.bool_(), "whether only the rows that sanitizing kept were exported"),
            column("target", pa.string(), "folder that was written to, as it was then"),
            column("images", pa.int64(), "images in all roles", unit="images"),
            column("digest", pa.string(), "xxh3-128 over ids, labels and roles in their order"),
            column("created_at", pa.timestamp("us", tz="UTC"), "when the export finished", unit="UTC"),
        ]
    ),
)
