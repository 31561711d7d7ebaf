"""Zip archives of class folders. Nothing is extracted to disk."""

import zipfile
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from pipeline.encoded import Encoded, Survey
from pipeline.sources import archive
from pipeline.sources.source import Source

_MAGIC = (b"PK\3\4", b"PK\5\6")


def recognises(path: Path, head: bytes) -> bool:
    """Tell a zip by its first bytes, or by its end where something else stands in front."""
    return head.startswith(_MAGIC) or (not path.is_dir() and zipfile.is_zipfile(path))


def survey(source: Source) -> Survey:
    """Fingerprint the archive by size and time; see `pipeline.sources`."""
    return archive.survey(source)


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Cut the archive into shards; see `pipeline.sources`."""
    return archive.read(source, wanted)
