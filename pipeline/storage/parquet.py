"""Parquet files wherever they lie."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.objects import is_bucket, look, read_range, scan_options

# Footers of a bucket that are asked for at once.
_AT_ONCE = 16


def scan_parquet(names: Sequence[str], **how: Any) -> pl.LazyFrame:  # noqa: ANN401 - Polars' own options
    """Scan Parquet files by name, at least one: by default what they hold, and nothing that their names say."""
    options = {"hive_partitioning": False, **how, "storage_options": scan_options(names[0])}
    # Its own way to credentials is that of another library; the variables say who asks.
    return pl.scan_parquet(list(names), glob=False, credential_provider=None, **options)


def read_footers(names: Sequence[str]) -> list[pq.FileMetaData]:
    """Read the footers of Parquet files, in the order given.

    Raises:
        FileNotFoundError: one is not there.
        OSError: one cannot be read, or is no Parquet file (`pyarrow.ArrowException` likewise).
    """
    if not names or not is_bucket(names[0]):
        return [pq.read_metadata(name) for name in names]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(_footer, names))


def _footer(name: str) -> pq.FileMetaData:
    with open_parquet(name) as file:
        return file.metadata


def open_parquet(name: str, **how: Any) -> pq.ParquetFile:  # noqa: ANN401 - pyarrow's own options
    """Open a Parquet file; close it, or use it in `with`.

    Args:
        name: place of the file.
        how: options of `pyarrow.parquet.ParquetFile`.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read, or is no Parquet file (`pyarrow.ArrowException` likewise).
    """
    if not is_bucket(name):
        return pq.ParquetFile(name, **how)
    found = look(name)
    if found is None:
        raise FileNotFoundError(name)
    # What is asked for is fetched as few long ranges instead of a request for every page.
    return pq.ParquetFile(pa.PythonFile(_Ranges(name, found.size), mode="r"), **{**how, "pre_buffer": True})


class _Ranges(io.RawIOBase):
    """An object as a file: every read asks for just its range."""

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size, self._at = name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, to: int, whence: int = io.SEEK_SET) -> int:
        self._at = to + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        length = min(size if size >= 0 else self._size, self._size - self._at)
        if length <= 0:
            return b""
        found = read_range(self._name, self._at, length)
        self._at += len(found)
        return found
