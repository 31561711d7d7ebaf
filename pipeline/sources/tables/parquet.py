"""Parquet with a column of encoded images: binary, or a struct with `bytes` in it, as Hugging Face publishes them.

The recipe's `images` and `labels` name the columns; `labels = ""` says that there are none. Otherwise Hugging Face's
own notes in the file tell, or the type, or a usual name (see `columns`). The path of an image is its row, from 0.

A shard is a run of row groups that lie together, or a slice of a large one. Here only labels and the file's directory
are read: workers read the images of their shard, some at a time. A row without an image is a reject; where the file's
statistics tell of such rows, or do not say, they are looked for here.

A column of pixels themselves, with columns of their sizes, is read too: `export --to parquet` and the images table of a
lake have one (see `raw_pixels`).
"""

import math
from collections.abc import Iterator
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

from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.shard import Blobs, Encoded, Made, Pixels, Refused, Survey
from pipeline.sources.source import BYTES_PER_SHARD, IMAGES_PER_SHARD, Source, files_fingerprint, one_line, shard_key
from pipeline.sources.tables.parquet_columns import (
    Columns,
    are_pixels,
    are_sizes,
    bytes_of,
    choose_columns,
    encoded_of,
    faults_of,
    labels_of,
    pictures_of,
    say_sizes,
    sizes_table,
)

_MAGIC = b"PAR1"
_BATCH = 1024
# Rows of a column of which only the values tell whether it may hold labels, or pixels.
_PEEKED = 16
# A column is read in pieces of this size, or page by page: a whole row group may be larger than memory.
_PIECE = 2**20


class _Run(NamedTuple):
    """Rows of one shard.

    Attributes:
        groups: the row groups that hold them.
        first: row of the file at which these begin.
        start: first row of the shard.
        stop: row behind its last.
    """

    groups: tuple[int, ...]
    first: int
    start: int
    stop: int


class _Group(NamedTuple):
    rows: int
    size: int  # bytes of images, unpacked
    nulls: int | None  # rows without an image, if the file says


def recognises(path: Path, head: bytes) -> bool:
    """Tell a Parquet file by its first bytes; see `pipeline.sources`."""
    return head.startswith(_MAGIC) and not path.is_dir()


def survey(source: Source) -> Survey:
    """Fingerprint the file by size and time; see `pipeline.sources`."""
    return Survey(digest_of([files_fingerprint(source, source.path), source.part.images, source.part.labels]))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Cut the file into runs of rows for workers to read; see `pipeline.sources`."""
    fingerprint = survey(source).fingerprint
    with _opened(source) as file:
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
                "instead, save it with the images in it, or list the files in a CSV of path and label."
            )
        for number, run in enumerate(_runs(groups)):
            key = shard_key(source, number)
            if wanted is None or key in wanted:
                sparse = any(groups[group].nulls != 0 for group in run.groups)
                shard = _encode(source, file, columns, run, sparse=sparse)
                made = Made(partial(_read_images, source, fingerprint, columns, run, len(shard.paths)))
                yield replace(shard, shard=key, fingerprint=fingerprint, contents=made, done=run.stop / rows)


def _groups(metadata: pq.FileMetaData, columns: Columns) -> list[_Group]:
    found = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        parts = map(group.column, range(group.num_columns))
        image = next((part for part in parts if part.path_in_schema == columns.leaf), None)
        if image is None:
            raise OSError(f"row group {number} has no column {columns.leaf}")
        told = image.is_stats_set and image.statistics.has_null_count
        nulls = image.statistics.null_count if told else None
        found.append(_Group(group.num_rows, image.total_uncompressed_size, nulls))
    return found


def _runs(groups: list[_Group]) -> Iterator[_Run]:
    """Merge row groups that are small and cut those that are large."""
    held: list[int] = []
    first = at = size = 0
    for number, group in enumerate(groups):
        if held and (at - first + group.rows > IMAGES_PER_SHARD or size + group.size > BYTES_PER_SHARD):
            yield _Run(tuple(held), first, first, at)
            held = []
        if not held:
            first, size = at, 0
        pieces = max(group.rows / IMAGES_PER_SHARD, group.size / BYTES_PER_SHARD)
        if pieces > 1:
            step = math.ceil(group.rows / math.ceil(pieces))
            for start in range(0, group.rows, step):
                yield _Run((number,), at, at + start, at + min(start + step, group.rows))
        elif group.rows:
            held.append(number)
            size += group.size
        at += group.rows
    if held:
        yield _Run(tuple(held), first, first, at)


def _encode(source: Source, file: pq.ParquetFile, columns: Columns, run: _Run, *, sparse: bool) -> Encoded:
    """Tell paths, labels and refusals of a run; only where it may be `sparse` are its images looked at."""
    count = run.stop - run.start
    paths = pa.array(np.arange(run.start, run.stop)).cast(pa.string())
    labels = (
        labels_of(source, columns, _rows(file, run, columns.label), run.start)
        if columns.label
        else pa.nulls(count, pa.string())
    )
    refused: tuple[Refused, ...] = ()
    there = None
    if sparse:
        images = _rows(file, run, columns.image)
        there = encoded_of(images).is_valid()
        gone = pc.invert(there)
        lost = (paths.filter(gone).to_pylist(), labels.filter(gone).to_pylist(), faults_of(images.filter(gone)))
        refused = tuple(Refused(path, label, "empty", why, 0) for path, label, why in zip(*lost, strict=True))
    if columns.sides:
        sides = _sides(file, run, columns)
        sized = are_sizes(sides)
        odd = pc.invert(sized) if there is None else pc.and_(there, pc.invert(sized))
        lost = (paths.filter(odd).to_pylist(), labels.filter(odd).to_pylist(), say_sizes(sides.filter(odd)))
        refused += tuple(Refused(path, label, "corrupt", why, 0) for path, label, why in zip(*lost, strict=True))
        there = sized if there is None else pc.and_(there, sized)
    if there is not None:
        paths, labels = paths.filter(there), labels.filter(there)
    return Encoded("", "", tuple(paths.to_pylist()), tuple(labels.to_pylist()), Blobs(()), refused)


def _read_images(source: Source, fingerprint: str, columns: Columns, run: _Run, count: int) -> Blobs | Pixels:
    """Read the images of a run, in a worker."""
    if survey(source).fingerprint != fingerprint:
        raise SourceError(f"{source.title}: {source.path} changed while it was read. Build again.")
    with _opened(source) as file:
        images = encoded_of(_rows(file, run, columns.image, columns.leaf))
        sides = _sides(file, run, columns) if columns.sides else None
        if sides is not None:
            there = pc.and_(images.is_valid(), are_sizes(sides))
            images, sides = bytes_of(images).filter(there), sides.filter(there)
        images = images.drop_null()
        if len(images) != count:
            raise OSError(f"its statistics tell of {count} images from row {run.start} on, and there are {len(images)}")
        return Blobs(tuple(images.to_pylist())) if sides is None else pictures_of(images, sides)


def _sides(file: pq.ParquetFile, run: _Run, columns: Columns) -> pa.Table:
    return sizes_table([_rows(file, run, name) for name in columns.sides])


def _holds_pixels(file: pq.ParquetFile, columns: Columns) -> bool:
    """Look at the first rows: do the numbers of bytes fit the sizes?"""
    names = [columns.image, *columns.sides]
    batch = next(file.iter_batches(_PEEKED, columns=names, use_threads=False), None)
    if batch is None:
        return False
    return are_pixels(bytes_of(batch[columns.image]), sizes_table([batch[name] for name in columns.sides]))


def _rows(file: pq.ParquetFile, run: _Run, column: str, leaf: str = "") -> pa.ChunkedArray:
    """Read a run's rows of a column, or of one leaf of it."""
    skip, stop = run.start - run.first, run.stop - run.first
    chunks = []
    at = 0
    size = min(_BATCH, stop - skip)
    # Here and in workers there is something else to do for every core.
    for batch in file.iter_batches(size, list(run.groups), [leaf or column], use_threads=False):
        if at + len(batch) > skip:
            chunks.append(batch[column][max(0, skip - at) : stop - at])
        at += len(batch)
        if at >= stop:
            break
    if at < stop:
        raise OSError(f"column '{column}' has {at} rows where {stop} should be")
    return pa.chunked_array(chunks)


def _first_rows(file: pq.ParquetFile, column: str) -> pa.ChunkedArray:
    """Read a few rows of a column, which may hold images."""
    batch = next(file.iter_batches(_PEEKED, columns=[column], use_threads=False), None)
    return pa.chunked_array([], pa.null()) if batch is None else pa.chunked_array([batch[column]])


@contextmanager
def _opened(source: Source) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(source.path, pre_buffer=False, buffer_size=_PIECE, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{source.title}: {source.path} cannot be read as Parquet ({one_line(error)}). It is damaged, or packed: "
            "fetch it again, or unpack it."
        ) from error
