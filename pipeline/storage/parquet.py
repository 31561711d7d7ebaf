"""Read Parquet files on disk and in buckets."""

import errno
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.objects import check_regular, head, is_bucket, polars_options, read_range

# Footers in a bucket that are read in parallel.
_THREADS = 16
# Bytes of a column chunk that is never refused, and how many times as large it may get.
_SMALL, _MAX_EXPANSION = 2**26, 1000
# The last bytes of every Parquet file.
_MAGIC = b"PAR1"


def scan_parquet(names: Sequence[str], **how: Any) -> pl.LazyFrame:  # noqa: ANN401 - Polars' own options
    """Scan one or more Parquet files; folder names such as `key=value` add no columns by default.

    Raises:
        OSError: a file on disk cannot be read; see `check_readable`.
    """
    check_readable(names)
    options = {"hive_partitioning": False, **how, "storage_options": polars_options(names[0])}
    # Without Polars' own search for credentials, which uses boto3: `polars_options` contains them.
    return pl.scan_parquet(list(names), glob=False, credential_provider=None, **options)


def check_readable(names: Sequence[str]) -> None:
    """Check that files on disk are whole and that this user may read them. Polars does not name the file.

    Raises:
        OSError: naming the first file that cannot be read, or does not end as a Parquet file.
    """
    if names and is_bucket(names[0]):
        return
    for name in names:
        check_regular(name, folders=False)
        # A file object takes twice as long, and a large lake has thousands of files.
        opened = os.open(name, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            size = os.lseek(opened, 0, os.SEEK_END)
            os.lseek(opened, max(0, size - len(_MAGIC)), os.SEEK_SET)
            end = os.read(opened, len(_MAGIC))
        finally:
            os.close(opened)
        if end != _MAGIC:
            raise OSError(errno.EINVAL, f"not a whole Parquet file: its {size:,} bytes do not end with PAR1", name)


def read_footers(names: Sequence[str]) -> list[pq.FileMetaData]:
    """Read the footers of Parquet files, in the order given.

    Raises:
        FileNotFoundError: one of them does not exist.
        OSError: one cannot be read or is not a Parquet file; also `pyarrow.ArrowException`.
    """
    if not names or not is_bucket(names[0]):
        return [pq.read_metadata(name) for name in names]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(_footer, names))


def _footer(name: str) -> pq.FileMetaData:
    with open_parquet(name) as file:
        return file.metadata


def check_expansion(metadata: pq.FileMetaData) -> None:
    """Check that no column of a file of a stranger expands a thousand times when it is decompressed.

    Raises:
        OSError: one does. Values that repeat are stored once before they are compressed, so data does not.
    """
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.total_byte_size < _SMALL:
            continue
        for column in map(group.column, range(group.num_columns)):
            size, packed = column.total_uncompressed_size, column.total_compressed_size
            if size > _SMALL and size > _MAX_EXPANSION * packed:
                raise OSError(f"column {column.path_in_schema} has {packed} bytes that decompress to {size}")


def open_parquet(name: str, **how: Any) -> pq.ParquetFile:  # noqa: ANN401 - pyarrow's own options
    """Open a Parquet file, to be closed by the caller or used in `with`.

    Args:
        name: place of the file.
        how: options of `pyarrow.parquet.ParquetFile`.

    Raises:
        FileNotFoundError: it does not exist.
        OSError: it cannot be read or is not a Parquet file; also `pyarrow.ArrowException`.
    """
    if not is_bucket(name):
        check_regular(name)
        return pq.ParquetFile(name, **how)
    found = head(name)
    if found is None:
        raise FileNotFoundError(name)
    # With `pre_buffer`, pyarrow reads a few long ranges instead of one range for every page.
    return pq.ParquetFile(pa.PythonFile(_ObjectFile(name, found.size), mode="r"), **{**how, "pre_buffer": True})


class _ObjectFile(io.RawIOBase):
    """An object of a bucket as a file; each read is one request for a range of bytes."""

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size, self._position = name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        length = min(size if size >= 0 else self._size, self._size - self._position)
        if length <= 0:
            return b""
        found = read_range(self._name, self._position, length)
        self._position += len(found)
        return found
