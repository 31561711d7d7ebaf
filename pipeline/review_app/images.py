"""The images of a release by number: a few facts of all of them in memory, and the rows of single images on demand."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import storage
from pipeline.arrow_columns import from_binary, to_numbers
from pipeline.lake.reads import explain_failures
from pipeline.lake_handle import Lake
from pipeline.pixels import RowGroup, id_matrix, row_groups

# Bytes of pixels of images that were shown, which are kept to be shown again.
_KEPT_BYTES = 2**26
# Columns of an image that are read with its pixels.
_COLUMNS = [
    "image_id",
    "path",
    "label",
    "height",
    "width",
    "channels",
    "content_hash",
    "file_digest",
    "file_size",
    "pixels",
]
_KEY_BYTES = 8
_BATCH_ROWS = 2**16
Numbers = NDArray[np.int32]


class Codes(NamedTuple):
    """A column of few values as numbers.

    Attributes:
        names: the values.
        codes: (n,) unsigned: for every image, one more than the position of its value in `names`; 0 if it has none.
    """

    names: list[str]
    codes: NDArray[np.unsignedinteger[Any]]

    def name(self, number: int) -> str | None:
        """Return the value of an image; None if it has none."""
        code = int(self.codes[number])
        return self.names[code - 1] if code else None

    def has(self, name: str) -> NDArray[np.bool_]:
        """Return for every image whether it has a value: (n,)."""
        found = self.names.index(name) + 1 if name in self.names else len(self.names) + 1
        return np.asarray(self.codes == found)


class Images:
    """The images of a release, numbered in the order of the table; 42 bytes of memory each.

    Attributes:
        ids: (n, 16) uint8: image_id of every image.
        keys: (n,) uint64: the first bytes of the file digest or, where there is none, of the content hash. Images with
            equal keys have the same file: a verdict about one is a verdict about all.
        labels: labels.
        sources: names dataset/split of the sources.
        datasets: names of the datasets.
    """

    def __init__(self, lake: Lake) -> None:
        parts = lake.snapshot.files("images")
        files = [f"{lake.root}/images/{part.path}" for part in parts]
        with storage.damage_errors(f"{lake.root}/images"):
            self._groups, rows = row_groups(files)
        self._ends = np.cumsum(rows)
        count = int(rows.sum())
        self.ids = np.empty((count, 16), np.uint8)
        self.keys = np.empty(count, np.uint64)
        labels, waiting, done = [], [], 0
        for group, stop in zip(self._groups, self._ends.tolist(), strict=True):
            waiting.append(_read(group, ["image_id", "label", "content_hash", "file_digest"]))
            if stop - done >= _BATCH_ROWS or stop == count:
                table = pa.concat_tables(waiting, promote_options="default").combine_chunks()
                self.ids[done:stop] = matrix_of(table["image_id"], 16)
                self.keys[done:stop] = _keys(table)
                labels.append(codes_of(table["label"]))
                waiting, done = [], stop
        # Ids are random: the first eight bytes hardly ever repeat.
        first = self.ids.view(">u8")[:, 0].astype(np.uint64)
        order = np.argsort(first)
        # One more, which is equal to or above all ids.
        self._order = np.append(order, 0).astype(np.int32)
        self._first = np.append(first[order], np.iinfo(np.uint64).max)
        # They are spread evenly, so their first bits tell where an id is, give or take a few.
        self._shift = np.uint64(64 - max(1, count.bit_length()))
        counts = np.bincount((first >> self._shift).astype(np.int64), minlength=1 << max(1, count.bit_length()))
        self._starts = np.append(0, np.cumsum(counts)).astype(np.int32)
        self.labels = joined(labels)
        of_group = np.repeat(np.arange(len(parts)), [part.rows for part in parts])
        self.sources = _of_parts([f"{of.partition['dataset']}/{of.partition['split']}" for of in parts], of_group)
        self.datasets = _of_parts([part.partition["dataset"] for part in parts], of_group)
        self._kept: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, ids: pl.Series) -> Numbers:
        """Find images by id: their numbers, -1 for an id of no image."""
        return self.find_rows(id_matrix(ids))

    def find_rows(self, wanted: NDArray[np.uint8]) -> Numbers:
        """Find images by their ids, (n, 16) uint8: their numbers, -1 for an id of no image."""
        first, second = np.ascontiguousarray(wanted).view(">u8").astype(np.uint64).T
        seconds = self.ids.view(">u8")[:, 1]
        at = self._starts[(first >> self._shift).astype(np.int64)]
        below = np.arange(len(at))
        while len(below):
            here = at[below]
            equal = (self._first[here] == first[below]) & (here < len(self))
            equal[equal] = seconds[self._order[here[equal]]] != second[below[equal]]
            below = below[(self._first[here] < first[below]) | equal]
            at[below] += 1
        return np.where((self._first[at] == first) & (at < len(self)), self._order[at], np.int32(-1))

    def find_columns(self, rows: pa.RecordBatch, *names: str) -> Numbers:
        """Find the images of several columns of ids together: (columns, n) numbers."""
        return np.stack([self.find_rows(matrix_of(rows[name], 16)) for name in names])

    def number(self, image_id: str) -> int:
        """Find an image by its id as hexadecimal digits; -1 if there is none."""
        try:
            wanted = bytes.fromhex(image_id)
        except ValueError:
            return -1
        if len(wanted) != self.ids.shape[1]:
            return -1
        return int(self.find_rows(np.frombuffer(wanted, np.uint8).reshape(1, -1))[0])

    def id_of(self, number: int) -> str:
        """Return the id of an image as hexadecimal digits."""
        image_id: bytes = self.ids[number].tobytes()
        return image_id.hex()

    def rows(self, numbers: Iterable[int]) -> list[dict[str, Any]]:
        """Read images with their pixels. Those that were shown last are kept in memory, 64 MiB of pixels at most.

        Returns:
            In the order of the numbers: image_id, path, label, height, width, channels, content_hash, file_digest,
            file_size, pixels, source and number.

        Raises:
            DamagedLakeError: a file is missing or damaged.
        """
        wanted = list(numbers)
        # One read at a time: a row group of photographs has 32 MB of pixels.
        with self._lock:
            found = {number: self._kept[number] for number in wanted if number in self._kept}
            missing = sorted(set(wanted) - found.keys())
            groups = np.searchsorted(self._ends, missing, side="right").tolist()
            for group in sorted(set(groups)):
                of_group = [number for number, at in zip(missing, groups, strict=True) if at == group]
                found |= self._read_rows(group, of_group)
            for number in dict.fromkeys(wanted):
                self._keep(number, found[number])
        return [found[number] for number in wanted]

    def _read_rows(self, group: int, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
        start = int(self._ends[group - 1]) if group else 0
        table = _read(self._groups[group], _COLUMNS).take(to_numbers(np.array(numbers) - start))
        return {
            number: {"file_digest": None, **row, "source": self.sources.name(number), "number": number}
            for number, row in zip(numbers, table.to_pylist(), strict=True)
        }

    def _keep(self, number: int, row: dict[str, Any]) -> None:
        if number not in self._kept:
            self._kept_bytes += len(row["pixels"])
        self._kept[number] = row
        self._kept.move_to_end(number)
        while self._kept_bytes > _KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest["pixels"])


@explain_failures
def load_images(lake: Lake) -> Images:
    """Read what is held in memory of all images.

    Raises:
        DamagedLakeError: a file is missing or damaged.
    """
    return Images(lake)


def keys_of(digests: pl.Series) -> NDArray[np.uint64]:
    """Return the first bytes of digests as numbers, as in `Images.keys`; 0 for null."""
    return digests.bin.slice(0, _KEY_BYTES).bin.reinterpret(dtype=pl.UInt64).fill_null(0).to_numpy()


def is_one_of(values: NDArray[np.uint64], few: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return for every value whether it is one of a few; `np.isin` sorts the values, which are many: (n,)."""
    known = np.unique(few)
    if len(known) <= 1:
        return values == known[0] if len(known) else np.zeros(len(values), np.bool_)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.asarray(known[at] == values)


def _keys(table: pa.Table) -> NDArray[np.uint64]:
    digests = table["file_digest"] if "file_digest" in table.column_names else None
    if digests is not None and not digests.null_count:
        return np.ascontiguousarray(matrix_of(digests, 32)[:, :_KEY_BYTES]).view(np.uint64)[:, 0]
    names = [name for name in ("file_digest", "content_hash") if name in table.column_names]
    return keys_of(pl.DataFrame(table.select(names)).select(pl.coalesce(names)).to_series())


def matrix_of(column: pa.Array | pa.ChunkedArray, width: int) -> NDArray[np.uint8]:
    """View a column of ids or digests as the rows of a matrix: (n, width) uint8, read-only."""
    chunk = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return from_binary(chunk, width)


def _read(group: RowGroup, columns: Sequence[str]) -> pa.Table:
    """Read columns of a row group, and compare their pages with their checksums."""
    with (
        storage.damage_errors(group.file),
        storage.open_parquet(group.file, pre_buffer=False, page_checksum_verification=True) as file,
    ):
        there = set(file.schema_arrow.names)
        return file.read_row_group(group.number, columns=[name for name in columns if name in there], use_threads=False)


def read_batches(files: Sequence[str], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Read columns of files in batches, and compare their pages with their checksums.

    Raises:
        DamagedLakeError: a file is missing or damaged.
    """
    for name in files:
        with (
            storage.damage_errors(name),
            storage.open_parquet(name, pre_buffer=False, page_checksum_verification=True) as file,
        ):
            yield from file.iter_batches(_BATCH_ROWS, columns=list(columns), use_threads=False)


def codes_of(column: pa.ChunkedArray | pa.Array) -> Codes:
    """Number the values of a column of text."""
    values = pl.Series(column).cast(pl.String)
    names = values.drop_nulls().unique().sort()
    codes = values.cast(pl.Enum(names)).to_physical().cast(pl.UInt32) + 1
    return Codes(names.to_list(), codes.fill_null(0).to_numpy())


def joined(parts: Sequence[Codes]) -> Codes:
    """Join parts of a column that were numbered one by one."""
    names = sorted(set().union(*(part.names for part in parts)))
    place = {name: code for code, name in enumerate(names, start=1)}
    numbered = [np.array([0, *map(place.__getitem__, part.names)], np.uint32)[part.codes] for part in parts]
    codes = np.concatenate([np.empty(0, np.uint32), *numbered])
    return Codes(names, _smallest(codes, len(names)))


def _of_parts(names: Sequence[str], of_group: NDArray[np.int64]) -> Codes:
    values = sorted(set(names))
    codes = np.array([values.index(name) + 1 for name in names], np.uint32)
    return Codes(values, _smallest(codes[of_group], len(values)))


def _smallest(codes: NDArray[np.uint32], largest: int) -> NDArray[np.unsignedinteger[Any]]:
    return codes.astype(np.min_scalar_type(largest))
