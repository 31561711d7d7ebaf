"""Read the pixels of chosen images from the images table.

`locate` finds images of one shape by id, reading ids only; `gather` reads their pixels into one array, copying every
pixel once. `locate_scattered` and `gather_scattered` do the same for values of several sizes: images of several shapes,
or the encoded files of the table `originals`. With a `Conversion`, `gather` brings both to one shape. `normalise`
scales pixels for training.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import storage
from pipeline.arrow_columns import from_binary
from pipeline.errors import DamagedLakeError, LakeError
from pipeline.limits import available_memory

SHAPE = ["height", "width", "channels"]
_INT32 = 2**31


class RowGroup(NamedTuple):
    """A row group: the smallest part of a Parquet file that can be read alone."""

    file: str
    number: int


class Conversion(NamedTuple):
    """How stored rows become images of one shape.

    Attributes:
        columns: the columns that it needs.
        function: makes pixels, (n, height * width * channels) uint8, of n rows of these columns. Picklable; it is
            called in several threads at a time.
        shape: (height, width, channels) of the images.
    """

    columns: tuple[str, ...]
    function: Callable[[pa.Table], NDArray[np.uint8]]
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Located:
    """Locations of wanted images that have one shape, or are brought to one.

    Attributes:
        groups: every row group of the table, in the order of files.
        rows: (groups,) int64: all rows of each, wanted or not.
        group: (n,) int32: position in `groups` of each wanted image, in the order they were requested.
        row: (n,) int32: row inside that row group.
        shape: (height, width, channels) of every image.
        check: whether files are checked for damage before their pixels are used.
        conversion: how rows become images; None if they are the column `pixels`.
        shapes: (n, 3) int64: height, width and channels of each wanted image, if they have several shapes. `shape` is
            then the largest height, width and channels.
    """

    groups: tuple[RowGroup, ...]
    rows: NDArray[np.int64]
    group: NDArray[np.int32]
    row: NDArray[np.int32]
    shape: tuple[int, int, int]
    check: bool = True
    conversion: Conversion | None = None
    shapes: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.group)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of pixels of every image: (n,) int64."""
        return np.full(len(self), prod(self.shape)) if self.shapes is None else self.shapes.prod(axis=1)

    def take(self, positions: NDArray[np.int64]) -> "Located":
        """Keep some of the images, in the order given."""
        shapes = None if self.shapes is None else self.shapes[positions]
        return replace(self, group=self.group[positions], row=self.row[positions], shapes=shapes)

    def file_order(self) -> NDArray[np.int64]:
        """Sort the images by row group and row: (n,) int64 positions."""
        return _file_order(self)


def locate(
    files: Sequence[str],
    image_ids: pl.Series,
    *,
    check: bool = True,
    conversion: Conversion | None = None,
    ragged: bool = False,
) -> Located:
    """Find images by id.

    Args:
        files: Parquet files of the images table, or of another one with a column image_id.
        image_ids: binary, unique, in the order of the result.
        check: whether `gather` checks the files for damage. Where ids are damaged, the images are not found.
        conversion: how rows become images of one shape; None if they are stored so.
        ragged: whether the images may have several shapes, for `gather_ragged`.

    Returns:
        Their locations. Without files or ids it is empty, of shape (0, 0, 0).

    Raises:
        LakeError: an id is in none of the files, or the images have several shapes.
    """
    if not files or image_ids.is_empty():
        empty = np.empty(0, np.int32)
        return Located((), np.empty(0, np.int64), empty, empty, (0, 0, 0))
    columns = SHAPE if conversion is None else []
    with errors_of(files):
        scanned = storage.scan_parquet(files).select("image_id", *columns).collect()
        groups, rows = row_groups(files)
    at = find(id_matrix(scanned["image_id"]), id_matrix(image_ids))
    if missing := np.count_nonzero(at < 0):
        raise _not_found(int(missing), files)
    group = np.repeat(np.arange(len(rows), dtype=np.int32), rows)[at]
    row = (at - (np.cumsum(rows) - rows)[group]).astype(np.int32)
    if ragged:
        shapes = scanned.select(pl.col(SHAPE).cast(pl.Int64).gather(at)).to_numpy()
        return Located(groups, rows, group, row, tuple(shapes.max(axis=0).tolist()), check, None, shapes)
    shape = one_shape(scanned.select(SHAPE), at) if conversion is None else conversion.shape
    return Located(groups, rows, group, row, shape, check, conversion)


def id_matrix(image_ids: pl.Series) -> NDArray[np.uint8]:
    """View ids as the rows of a matrix: (n, 16) uint8, read-only."""
    return from_binary(image_ids.to_arrow(compat_level=pl.CompatLevel.oldest()), 16)


def order_of_ids(ids: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the order of ids, (n, 16) uint8, as bytes: (n,) int64 positions, of the smallest id first."""
    first = ids.view(">u8")[:, 0].astype(np.uint64)
    order = np.argsort(first)
    ordered = first[order]
    # Ids are random: the first eight bytes hardly ever repeat. Where they do, the others decide.
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort((ids.view(">u8")[:, 1].astype(np.uint64), first))
    return order


def find(ids: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Find the positions of ids in a larger set of ids.

    Ids are random, so some of their bits say where to put them into a table. Of ids that have the same bits, the last
    one is in the table; the others are looked up by other bits. This takes half the time of sorting and searching.

    Args:
        ids: (m, 16) uint8, unique.
        wanted: (n, 16) uint8, unique.

    Returns:
        (n,) int64 positions in `ids`, -1 for an id that is not there.
    """
    at = np.full(len(wanted), -1, dtype=np.int64)
    positions, missing = np.arange(len(ids)), np.arange(len(wanted))
    ours, theirs = (np.ascontiguousarray(matrix).view("<u8") for matrix in (ids, wanted))
    for half, shift in ((0, 0), (1, 0), (0, 32), (1, 32)):
        if not len(ours) or not len(theirs):
            return at
        mask = np.uint64((1 << len(ours).bit_length() + 1) - 1)
        slots, searched = ((halves[:, half] >> np.uint64(shift) & mask).astype(np.int64) for halves in (ours, theirs))
        table = np.zeros(int(mask) + 1, np.int32 if len(ours) < _INT32 else np.int64)
        table[slots] = np.arange(len(ours), dtype=table.dtype)
        found = table[searched]
        same = (ours[found, 0] == theirs[:, 0]) & (ours[found, 1] == theirs[:, 1])
        at[missing[same]] = positions[found[same]]
        lost = np.flatnonzero(table[slots] != np.arange(len(ours)))
        positions, missing, ours, theirs = positions[lost], missing[~same], ours[lost], theirs[~same]
    left, right = (
        pl.DataFrame({"id": pl.Series(map(bytes, matrix), dtype=pl.Binary)})
        for matrix in (wanted[missing], ids[positions])
    )
    right = right.with_columns(at=pl.Series(positions))
    joined = left.join(right, on="id", how="left", maintain_order="left")["at"]
    at[missing] = joined.fill_null(-1).to_numpy()
    return at


def one_shape(all_shapes: pl.DataFrame, at: NDArray[np.int64]) -> tuple[int, int, int]:
    """Return the shape (height, width, channels) of the rows `at`.

    Raises:
        LakeError: they have several.
    """
    # Most lakes have one shape, and selecting rows takes longer than comparing all of them.
    if all_shapes.select(pl.min_horizontal(pl.all().min() == pl.all().max())).item():
        return all_shapes.row(0)
    shapes = all_shapes.unique()
    if len(shapes) > 1:
        shapes = all_shapes.select(pl.all().gather(at)).unique()
    if len(shapes) > 1:
        listed = ", ".join("x".join(map(str, row)) for row in shapes.sort(SHAPE).head(5).rows())
        raise LakeError(
            f'the images have several shapes ({listed}): give a size = (height, width), or ragged = "list" or '
            '"pad"; or set decode.size in the recipe to get one array.'
        )
    height, width, channels = shapes.row(0)
    return height, width, channels


def row_groups(files: Sequence[str]) -> tuple[tuple[RowGroup, ...], NDArray[np.int64]]:
    """List the row groups and count the rows of each. Reads footers only."""
    footers = dict(zip(files, storage.read_footers(files), strict=True))
    groups = tuple(RowGroup(file, at) for file, footer in footers.items() for at in range(footer.num_row_groups))
    return groups, np.array([footers[file].row_group(at).num_rows for file, at in groups], dtype=np.int64)


class DecodedGroups(Protocol):
    """Pixels of row groups that were decoded before. Called in several threads at a time."""

    def read(self, group: int, rows: NDArray[np.integer[Any]], out: NDArray[np.uint8]) -> bool:
        """Copy the pixels of rows of a row group, ascending, into `out`, (bytes,); False if they are not there."""
        ...

    def write(self, group: int, rows: NDArray[np.integer[Any]], pixels: NDArray[np.uint8]) -> None:
        """Offer the pixels of rows of a row group, ascending, (bytes,) uint8, to be kept."""
        ...


def gather(where: Located, decoded: DecodedGroups | None = None) -> NDArray[np.uint8]:
    """Read the pixels of located images into one array.

    Only the row groups that hold wanted images are read, each once, in threads. Besides the result, each thread holds
    at most one row group in memory. Images in file order (`Located.file_order`) are read fastest. With `where.check`,
    the files that hold them are checked first, as `storage.check_files` does; those of a bucket only page by page, as
    they would be downloaded twice.

    Args:
        where: made by `locate`.
        decoded: read row groups from here where possible, and offer it those that are decoded. The images are then in
            file order.

    Raises:
        LakeError: the result does not fit into the memory that is available.
        DamagedLakeError: a file is missing or damaged.

    Returns:
        (n, height, width) uint8 for gray, (n, height, width, 3) for RGB, 0 to 255, C-contiguous, in the order of
        `where`.
    """
    out = _allocate(len(where), len(where) * prod(where.shape), f" of {' x '.join(map(str, where.shape))}")
    out = out.reshape(len(where), prod(where.shape))

    def read(number: int, rows: NDArray[np.integer[Any]], targets: NDArray[np.int64]) -> None:
        if decoded is not None and decoded.read(number, rows, kept := out[targets[0] : targets[-1] + 1].reshape(-1)):
            return
        group = where.groups[number]
        if where.conversion is None:
            _read_rows_into(out, group, rows, targets, check=where.check)
        else:
            columns, convert, _ = where.conversion
            out[targets] = convert(_read_columns(group, rows, columns, check=where.check))
        if decoded is not None:
            decoded.write(number, rows, kept)

    sum(_for_each_group(where, read))
    return shaped(out, where.shape)


def gather_ragged(where: Located, decoded: DecodedGroups | None = None) -> "RaggedImages":
    """Read the pixels of located images of several shapes, as `gather` does.

    Args:
        where: made by `locate` with `ragged`.
        decoded: as in `gather`.
    """
    if where.shapes is None:
        raise ValueError("locate these images with ragged = True")
    sizes = where.sizes
    starts = np.cumsum(sizes) - sizes
    out = _allocate(len(where), int(sizes.sum()))

    def read(number: int, rows: NDArray[np.integer[Any]], targets: NDArray[np.int64]) -> None:
        kept = out[starts[targets[0]] : starts[targets[-1]] + sizes[targets[-1]]]
        if decoded is not None and decoded.read(number, rows, kept):
            return
        column = _read_columns(where.groups[number], rows, ["pixels"], check=where.check)["pixels"]
        for value, start in zip(column, starts[targets].tolist(), strict=True):
            picture = np.frombuffer(value.as_buffer(), np.uint8)
            out[start : start + len(picture)] = picture
        if decoded is not None:
            decoded.write(number, rows, kept)

    sum(_for_each_group(where, read))
    return RaggedImages(where.shapes, out)


def _allocate(images: int, size: int, shape: str = "") -> NDArray[np.uint8]:
    """Allocate the pixels of images, in bytes; Linux would kill a process that fills more memory than there is.

    Raises:
        LakeError: they do not fit.
    """
    available = available_memory()
    try:
        if available is None or size <= available:
            return np.empty(size, dtype=np.uint8)
    except (MemoryError, ValueError):
        pass
    have = "" if available is None else f", and {available / 1e9:,.1f} GB are available"
    raise LakeError(
        f"{images:,} images{shape} need {size / 1e9:,.1f} GB of memory{have}. Read fewer or smaller images, or use "
        "feed, which reads them part by part."
    )


def _for_each_group(
    where: "Located | Scattered", read: Callable[[int, NDArray[np.integer[Any]], NDArray[np.int64]], None]
) -> Iterator[int]:
    """Call a function in threads for every row group with wanted images: number, ascending rows, and their positions.

    Yields:
        The number of wanted images of every row group that is done. An error of the function is raised here.
    """
    order = _file_order(where)
    edges = np.searchsorted(where.group[order], np.arange(len(where.groups) + 1))
    wanted = np.flatnonzero(np.diff(edges))
    if not len(wanted):
        return

    def one(group: int) -> int:
        targets = order[edges[group] : edges[group + 1]]
        if where.check:
            _check([where.groups[group].file])
        with storage.damage_errors(where.groups[group].file):
            read(group, where.row[targets], targets)
        return len(targets)

    pool = ThreadPoolExecutor(min(len(wanted), available_cores()))
    try:
        yield from pool.map(one, wanted.tolist())
    finally:
        pool.shutdown(cancel_futures=True)


def _file_order(where: "Located | Scattered") -> NDArray[np.int64]:
    return np.argsort(where.group.astype(np.int64) << 32 | where.row)


def available_cores() -> int:
    """Count the cores that this process may use."""
    # Windows and macOS have no sched_getaffinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shaped(rows: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """View rows of bytes as pictures, without a copy: (n, height, width) for gray, (n, height, width, 3) for RGB."""
    return rows.reshape(len(rows), *_array_shape(*shape))


def _check(files: Iterable[str]) -> None:
    """Check files for damage, except those of a bucket, whose pages are checked when they are read."""
    storage.check_files(file for file in files if not storage.is_bucket(file))


def errors_of(files: Sequence[str]) -> AbstractContextManager[None]:
    """Turn errors into those of a damaged table of images."""
    return storage.damage_errors(_table_of(files))


def _table_of(files: Sequence[str]) -> str:
    """Return the place of the table that files are of."""
    return files[0].partition("/dataset=")[0]


def _not_found(missing: int, files: Sequence[str]) -> LakeError:
    return DamagedLakeError(
        f"{_table_of(files)}: {missing:,} images of the split are not in the images table. List the damage with "
        "`imagelake verify LAKE`, repair it with `imagelake build LAKE --repair`."
    )


def _read_rows_into(
    out: NDArray[np.uint8], group: RowGroup, rows: NDArray[np.integer[Any]], targets: NDArray[np.int64], *, check: bool
) -> None:
    """Copy rows of a row group, which are ascending, to the rows `targets` of the output."""
    import pyarrow.compute as pc  # noqa: PLC0415 - 30 ms that a build without work does not spend

    # pre_buffer would copy the compressed row group once more, and other threads read at the same time anyway.
    checked = check and storage.is_bucket(group.file)
    with storage.open_parquet(group.file, pre_buffer=False, page_checksum_verification=checked) as file:
        chunks = file.read_row_group(group.number, columns=["pixels"], use_threads=False).column(0).chunks
    # Several chunks only for a row group over 2 GiB, which imagelake does not write.
    lengths = np.concatenate([pc.binary_length(chunk).to_numpy() for chunk in chunks])
    if (lengths != out.shape[1]).any():
        # Images of other shapes lie between the wanted ones.
        chunks = [pa.chunked_array(chunks).take(pa.array(rows)).combine_chunks()]
        rows = np.arange(len(rows))
    views = [from_binary(chunk, out.shape[1]) for chunk in chunks]
    pixels = views[0] if len(views) == 1 else np.concatenate(views)
    if targets[-1] - targets[0] == len(targets) - 1 and (np.diff(targets) == 1).all():
        # mode="raise" would gather into a buffer and copy that.
        np.take(pixels, rows, axis=0, out=out[targets[0] : targets[-1] + 1], mode="clip")
    else:
        out[targets] = pixels[rows]


@dataclass(frozen=True)
class Scattered:
    """Locations of wanted images that have several shapes.

    Attributes:
        groups: every row group of the images table.
        group: (n,) int64: position in `groups` of each image, in the order they were requested.
        row: (n,) int64: row inside that row group.
        check: as in `Located`.
    """

    groups: tuple[RowGroup, ...]
    group: NDArray[np.int64]
    row: NDArray[np.int64]
    check: bool = True


def locate_scattered(files: Sequence[str], image_ids: pl.Series, *, check: bool = True) -> Scattered:
    """Find images by id.

    Args:
        files: Parquet files of the images table.
        image_ids: binary, unique, in the order of the result.
        check: as in `locate`.

    Returns:
        Their locations.

    Raises:
        LakeError: an id is in none of the files.
    """
    wanted = pl.LazyFrame({"image_id": image_ids})
    with errors_of(files):
        scanned = storage.scan_parquet(files, row_index_name="at")
        found = wanted.join(
            scanned.select("image_id", "at"), on="image_id", how="left", maintain_order="left"
        ).collect()
        groups, rows = row_groups(files)
    if missing := found["at"].null_count():
        raise _not_found(missing, files)
    starts = np.append(0, np.cumsum(rows))
    at = found["at"].to_numpy().astype(np.int64)
    group = np.searchsorted(starts, at, side="right") - 1
    return Scattered(groups, group, at - starts[group], check)


def gather_scattered(where: Scattered, start: int, stop: int, column: str = "pixels") -> NDArray[np.uint8]:
    """Read the pixels, or another binary column, of the images `start` to `stop`.

    Besides the result, one row group is in memory.

    Returns:
        The bytes of one image after the other, (bytes,) uint8, in the order of `where`.
    """
    if start == stop:
        return np.empty(0, np.uint8)
    group, row = where.group[start:stop], where.row[start:stop]
    order = np.lexsort((row, group))
    wanted, firsts = np.unique(group[order], return_index=True)
    if where.check:
        _check({where.groups[number].file for number in wanted.tolist()})
    parts = [
        _read_columns(where.groups[number], row[positions], [column], check=where.check)
        .column(0)
        .cast(pa.large_binary())
        .combine_chunks()
        for number, positions in zip(wanted.tolist(), np.split(order, firsts[1:]), strict=True)
    ]
    # large_binary, because the result may be over 2 GiB where a single picture is huge.
    in_file_order = pa.concat_arrays(parts)
    inverse = np.empty(len(order), np.int64)
    inverse[order] = np.arange(len(order))
    requested = in_file_order.take(pa.array(inverse))
    offsets = np.frombuffer(requested.buffers()[1], np.int64)[requested.offset :][: len(requested) + 1]
    return np.frombuffer(requested.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]


def for_each_value(
    where: Scattered, column: str, function: Callable[[NDArray[np.int64], list[pa.Buffer]], None]
) -> Iterator[int]:
    """Call a function in threads with the values of a binary column, one row group at a time, in any order.

    Each thread holds one row group. The values are not copied.

    Args:
        where: the wanted images.
        column: name of the column.
        function: takes the positions in `where` of images of a row group, and their values.

    Yields:
        The number of images that are done since the last one. An error of the function is raised here.
    """

    def read(number: int, rows: NDArray[np.integer[Any]], targets: NDArray[np.int64]) -> None:
        values = _read_columns(where.groups[number], rows, [column], check=where.check).column(0)
        function(targets, [value.as_buffer() for value in values])

    yield from _for_each_group(where, read)


def _read_columns(group: RowGroup, rows: NDArray[np.integer[Any]], columns: Sequence[str], *, check: bool) -> pa.Table:
    checked = check and storage.is_bucket(group.file)
    with (
        storage.damage_errors(group.file),
        storage.open_parquet(group.file, pre_buffer=False, page_checksum_verification=checked) as file,
    ):
        found = file.read_row_group(group.number, columns=list(columns), use_threads=False)
    # Most often all rows are wanted; selecting them would copy them.
    return found if np.array_equal(rows, np.arange(len(found))) else found.take(pa.array(rows))


class RaggedImages(NamedTuple):
    """Images of several shapes.

    Attributes:
        shapes: (n, 3) int64: height, width and channels of each.
        values: (bytes,) uint8: the pixels of one image after the other.
    """

    shapes: NDArray[np.int64]
    values: NDArray[np.uint8]

    def take(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Copy some of the images, in the order given."""
        ends = self.shapes.prod(axis=1).cumsum()[rows]
        shapes = self.shapes[rows]
        return [
            self.values[end - size : end].reshape(_array_shape(*shape)).copy()
            for end, size, shape in zip(ends.tolist(), shapes.prod(axis=1).tolist(), shapes.tolist(), strict=True)
        ]

    @property
    def edges(self) -> NDArray[np.int64]:
        """Where each image starts in `values`, and where the last one ends: (n + 1,) int64."""
        return np.concatenate([[0], np.cumsum(self.shapes.prod(axis=1))])

    def pictures(self) -> Iterator[NDArray[np.uint8]]:
        """View the images one by one: (height, width) for gray, (height, width, 3) for RGB."""
        edges = self.edges.tolist()
        for n, shape in enumerate(self.shapes.tolist()):
            yield self.values[edges[n] : edges[n + 1]].reshape(_array_shape(*shape))


def _array_shape(height: int, width: int, channels: int) -> tuple[int, ...]:
    return (height, width, channels) if channels > 1 else (height, width)


def padded(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Copy images into one array of the largest height and width, with zeros to the right and below.

    Args:
        images: at least one; (height, width) for gray, (height, width, 3) for RGB.

    Returns:
        (n, height, width) uint8 for gray, (n, height, width, 3) for RGB.
    """
    out = np.zeros(
        (len(images), *(max(sides) for sides in zip(*(image.shape for image in images), strict=True))), np.uint8
    )
    for row, image in zip(out, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return out


def runs_of_one_shape(images: pa.Table) -> Iterator[tuple[pa.Table, NDArray[np.uint8]]]:
    """Split rows of the images table, such as a row group, into runs of images of one shape, in their order.

    Args:
        images: columns height, width, channels and pixels, and any others, each in one chunk.

    Yields:
        The rows of a run, and their pixels, (n, height, width, channels) uint8, which share the memory of the column.

    Raises:
        ValueError: an image has more or fewer pixels than its shape.
    """
    shapes = np.stack([images[name].to_numpy() for name in SHAPE], axis=1)
    starts = np.flatnonzero(np.diff(shapes, axis=0).any(axis=1)) + 1
    for start, stop in pairwise([0, *starts.tolist(), len(images)]):
        if start < stop:
            run = images.slice(start, stop - start)
            shape = shapes[start].tolist()
            yield run, from_binary(run["pixels"].chunk(0), prod(shape)).reshape(len(run), *shape)


# (p - 127.5) / 255 for every byte value: a table is exact, and faster than computing it.
_NORMALISED = ((np.arange(256) - 127.5) / 255).astype(np.float32)


def normalise(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale pixels to (p - 127.5) / 255, as the notMNIST notebooks do.

    Args:
        pixels: uint8 of any shape.

    Returns:
        float32 of the same shape, -0.5 to 0.5.
    """
    return _NORMALISED[pixels]
