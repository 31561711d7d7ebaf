"""One row per basis that was fitted to this lake's images."""

import pyarrow as pa

from schemas.table import Table, column

TABLE = Table(
    name="bases",
    doc="one row per basis that a family of rules fitted to this lake's images, and keeps for later ones",
    schema=pa.schema(
        [
            column("family", pa.string(), "rules that use it, such as photo for photo:0.5"),
            column("version", pa.int32(), "version of the descriptor that it belongs to"),
            column("images", pa.int64(), "images it was fitted to", unit="images"),
            column("basis", pa.binary(), "the basis", unit="float32, little-endian, as the family lays it out"),
        ]
    ),
)
