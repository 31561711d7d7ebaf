"""Read Parquet with a column of encoded images: binary, or a struct with `bytes`, as Hugging Face publishes them.

`parquet_columns` chooses the columns. The path of an image is its row number, from 0. A column of raw pixels with
columns of their sizes is read too: `export --to parquet` and the images table of a lake have one.

A shard is several consecutive row groups, or a slice of a large one. This process reads only labels and metadata;
workers read the images of their shard. A row without an image is a reject. The image column is read here only if the
file's statistics report such rows or have no count.
"""

import math
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import SourceError, one_line
from pipeline.hashing import digest_of
from pipeline.shard import Blobs, Deferred, Encoded, Pixels, Reject, Survey
from pipeline.sources.source import BYTES_PER_SHARD, IMAGES_PER_SHARD, Source, files_fingerprint, shard_key
from pipeline.sources.tables.parquet_columns import (
    Columns,
    are_valid_sizes,
    choose_columns,
    describe_sizes,
    encoded_images,
    images_from_pixels,
    label_texts,
    missing_image_details,
    sizes_fit_bytes,
    sizes_table,
    to_large_binary,
)
from pipeline.storage import check_expansion

_MAGIC = b"PAR1"
_BATCH = 1024
# Most bytes of a batch, and of a column of a shard, where a dictionary makes them larger than the file says.
_BATCH_BYTES, _MAX_SHARD_BYTES = 2**28, 2**30
# Rows that are read if only the values show whether a column holds labels or pixels.
_SAMPLE_ROWS = 16
# Bytes read at once, or one page: a row group may be larger than memory.
_BUFFER_BYTES = 2**20


class _RowRange(NamedTuple):
    """The rows of one shard.

    Attributes:
        groups: the row groups that hold them.
        first: first row of these row groups.
        start: first row of the shard.
        stop: row after its last.
    """

    groups: tuple[int, ...]
    first: int
    start: int
    stop: int


class _Group(NamedTuple):
    rows: int
    size: int  # bytes of the images, uncompressed
    nulls: int | None  # rows without an image, or None if the file has no count


def recognises(path: Path, head: bytes) -> bool:
    """Recognise a Parquet file by its first bytes; see `FormModule`."""
    return head.startswith(_MAGIC) and not path.is_dir()


def survey(source: Source) -> Survey:
    """Fingerprint the file by size and time, and the keys of the recipe; see `FormModule`."""
    return Survey(digest_of([files_fingerprint(source, source.path), source.part.images, source.part.labels]))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Yield shards of consecutive rows whose images workers read; see `FormModule`."""
    fingerprint = survey(source).fingerprint
    with _open_file(source) as file:
        columns = choose_columns(source, file.schema_arrow, partial(_first_rows, file))
        if columns.sides and not _holds_pixels(file, columns):
            columns = columns._replace(sides=())
        groups = _groups(file.metadata, columns)
        rows = sum(group.rows for group in groups)
        if not rows:
            raise SourceError(f"{source.title}: {source.path} holds no rows. Check that it is the right file.")
        if rows == sum(group.nulls or 0 for group in groups):
            raise SourceError(
                f"{source.title}: column '{columns.image}' of {source.path} holds no images. If its rows name files "
                "instead, save the images in it, or list the files in a CSV of path and label."
            )
        for number, run in enumerate(_row_ranges(groups)):
            key = shard_key(source, number)
            if wanted is None or key in wanted:
                sparse = any(groups[group].nulls != 0 for group in run.groups)
                shard = _make_shard(source, file, columns, run, sparse=sparse)
                made = Deferred(partial(_read_images, source, fingerprint, columns, run, len(shard.paths)))
                yield replace(shard, shard=key, fingerprint=fingerprint, contents=made, done=run.stop / rows)


def _groups(metadata: pq.FileMetaData, columns: Columns) -> list[_Group]:
    found = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        parts = map(group.column, range(group.num_columns))
        image = next((part for part in parts if part.path_in_schema == columns.leaf), None)
        if image is None:
            raise OSError(f"row group {number} has no column {columns.leaf}")
        has_count = image.is_stats_set and image.statistics.has_null_count
        nulls = image.statistics.null_count if has_count else None
        found.append(_Group(group.num_rows, image.total_uncompressed_size, nulls))
    return found


def _row_ranges(groups: list[_Group]) -> Iterator[_RowRange]:
    """Join small row groups and cut large ones."""
    held: list[int] = []
    first = at = size = 0
    for number, group in enumerate(groups):
        if held and (at - first + group.rows > IMAGES_PER_SHARD or size + group.size > BYTES_PER_SHARD):
            yield _RowRange(tuple(held), first, first, at)
            held = []
        if not held:
            first, size = at, 0
        pieces = max(group.rows / IMAGES_PER_SHARD, group.size / BYTES_PER_SHARD)
        if pieces > 1:
            step = math.ceil(group.rows / math.ceil(pieces))
            for start in range(0, group.rows, step):
                yield _RowRange((number,), at, at + start, at + min(start + step, group.rows))
        elif group.rows:
            held.append(number)
            size += group.size
        at += group.rows
    if held:
        yield _RowRange(tuple(held), first, first, at)


def _make_shard(source: Source, file: pq.ParquetFile, columns: Columns, run: _RowRange, *, sparse: bool) -> Encoded:
    """Read paths, labels and rejects of a shard; its images are read only if some may be missing (`sparse`)."""
    count = run.stop - run.start
    paths = pa.array(np.arange(run.start, run.stop)).cast(pa.string())
    labels = (
        label_texts(source, columns, _rows(file, run, columns.label), run.start)
        if columns.label
        else pa.nulls(count, pa.string())
    )
    rejects: tuple[Reject, ...] = ()
    present = None
    if sparse:
        images = _rows(file, run, columns.image)
        present = encoded_images(images).is_valid()
        absent = pc.invert(present)
        columns_of_rejects = (
            paths.filter(absent).to_pylist(),
            labels.filter(absent).to_pylist(),
            missing_image_details(images.filter(absent)),
        )
        rejects = tuple(
            Reject(path, label, "empty", why, 0) for path, label, why in zip(*columns_of_rejects, strict=True)
        )
    if columns.sides:
        sides = _sides(file, run, columns)
        valid = are_valid_sizes(sides)
        invalid = pc.invert(valid) if present is None else pc.and_(present, pc.invert(valid))
        columns_of_rejects = (
            paths.filter(invalid).to_pylist(),
            labels.filter(invalid).to_pylist(),
            describe_sizes(sides.filter(invalid)),
        )
        rejects += tuple(
            Reject(path, label, "corrupt", why, 0) for path, label, why in zip(*columns_of_rejects, strict=True)
        )
        present = valid if present is None else pc.and_(present, valid)
    if present is not None:
        paths, labels = paths.filter(present), labels.filter(present)
    return Encoded("", "", tuple(paths.to_pylist()), tuple(labels.to_pylist()), Blobs(()), rejects)


def _read_images(source: Source, fingerprint: str, columns: Columns, run: _RowRange, count: int) -> Blobs | Pixels:
    """Read the images of a shard, in a worker."""
    if survey(source).fingerprint != fingerprint:
        raise SourceError(f"{source.title}: {source.path} changed while it was read. Run the build again.")
    with _open_file(source) as file:
        images = encoded_images(_rows(file, run, columns.image, columns.leaf))
        sides = _sides(file, run, columns) if columns.sides else None
        if sides is not None:
            present = pc.and_(images.is_valid(), are_valid_sizes(sides))
            images, sides = to_large_binary(images).filter(present), sides.filter(present)
        images = images.drop_null()
        if len(images) != count:
            raise OSError(f"its statistics count {count} images from row {run.start}, but it has {len(images)}")
        return Blobs(tuple(images.to_pylist())) if sides is None else images_from_pixels(images, sides)


def _sides(file: pq.ParquetFile, run: _RowRange, columns: Columns) -> pa.Table:
    return sizes_table([_rows(file, run, name) for name in columns.sides])


def _holds_pixels(file: pq.ParquetFile, columns: Columns) -> bool:
    """Return whether the number of bytes fits the sizes in the first rows."""
    names = [columns.image, *columns.sides]
    batch = next(file.iter_batches(_SAMPLE_ROWS, columns=names, use_threads=False), None)
    if batch is None:
        return False
    return sizes_fit_bytes(to_large_binary(batch[columns.image]), sizes_table([batch[name] for name in columns.sides]))


def _rows(file: pq.ParquetFile, run: _RowRange, column: str, leaf: str = "") -> pa.ChunkedArray:
    """Read the rows of a shard of a column, or of one leaf of it."""
    skip, stop = run.start - run.first, run.stop - run.first
    chunks = []
    at = read = 0
    size = min(_batch_rows(file, run.groups, leaf or column), max(1, stop - skip))
    # No threads: other work keeps every core busy, here and in workers.
    for batch in file.iter_batches(size, list(run.groups), [leaf or column], use_threads=False):
        if at + len(batch) > skip:
            chunks.append(batch[column][max(0, skip - at) : stop - at])
            read += batch[column].nbytes
        if read > _MAX_SHARD_BYTES:
            raise OSError(
                f"column '{column}' has rows that decompress to more than {_MAX_SHARD_BYTES >> 20} MiB at once"
            )
        at += len(batch)
        if at >= stop:
            break
    if at < stop:
        raise OSError(f"column '{column}' has {at} rows instead of {stop}")
    return pa.chunked_array(chunks)


def _batch_rows(file: pq.ParquetFile, groups: Sequence[int], leaf: str) -> int:
    """Return how many rows of a column to read at once.

    A dictionary stores a value once that a thousand rows may have. No value is larger than its column chunk.
    """
    largest = 1
    for group in map(file.metadata.row_group, groups):
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema.startswith(leaf) and any("DICTIONARY" in name for name in column.encodings):
                largest = max(largest, column.total_uncompressed_size)
    return max(1, min(_BATCH, _BATCH_BYTES // largest))


def _first_rows(file: pq.ParquetFile, column: str) -> pa.ChunkedArray:
    """Read the first rows of a column, which may hold images."""
    rows = min(_SAMPLE_ROWS, _batch_rows(file, range(file.metadata.num_row_groups)[:1], column))
    batch = next(file.iter_batches(rows, columns=[column], use_threads=False), None)
    return pa.chunked_array([], pa.null()) if batch is None else pa.chunked_array([batch[column]])


@contextmanager
def _open_file(source: Source) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(
            source.path, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
        ) as file:
            check_expansion(file.metadata)
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{source.title}: {source.path} cannot be read as Parquet ({one_line(error)}). It is damaged or "
            "compressed: fetch it again, or unpack it."
        ) from error
