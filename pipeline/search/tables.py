"""The protocol of a lake that can be searched. `Lake` implements it; this package must not import `Lake`."""

from typing import Protocol

import polars as pl

from pipeline.lake.snapshot import Snapshot


class Tables(Protocol):
    """The tables of a lake at one release.

    Attributes:
        root: place of the lake.
        release: number of the release.
        versions: by table, its version in the release.
        snapshot: the tables at these versions.
    """

    root: str
    release: int
    versions: dict[str, int]
    snapshot: Snapshot

    def scan(self, table: str) -> pl.LazyFrame:
        """Scan a table."""
