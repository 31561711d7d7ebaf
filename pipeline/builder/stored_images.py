"""Take unchanged images of a shard from the lake's files instead of decoding their files again.

A shard is read again when one of its files is new, changed or gone. The footer of each file of the images table holds,
for each row, a digest of the size and the time of change that the source file had. Where both are as they were, the
stored row is what decoding would make, as long as the decode settings are the same.
"""

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import storage
from pipeline.decode import StoredImage, StoredOriginal
from pipeline.decode.facts import Facts
from pipeline.errors import DamagedLakeError
from pipeline.hashing import image_ids
from pipeline.pixels import find, id_matrix
from pipeline.shard import STATE_BYTES, Encoded, Files

# The key of a footer of the images table: base64 of the states of the rows' source files, in the order of the rows.
STATES_KEY = b"imagelake.states"

_IMAGE = ["height", "width", "channels", "file_digest", "file_size"]


class StoredShard(NamedTuple):
    """The files of a shard in the lake, by their places.

    Attributes:
        images: file of the images table.
        originals: file of the originals table; empty if the shard has none.
    """

    images: str
    originals: str


class _Rows:
    """Rows of a Parquet file by position. One row group is in memory.

    Args:
        file: place of the file.
        values: name of the binary column that is large, such as pixels.
        columns: names of the others.
    """

    def __init__(self, file: str, values: str, columns: Sequence[str]) -> None:
        self._file, self._values, self._columns = file, values, list(columns)
        storage.check_files([file])
        with storage.damage_errors(file):
            with storage.open_parquet(file) as opened:
                counts = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
                self.footer = dict(opened.metadata.metadata or {})
            self.ids = id_matrix(storage.scan_parquet([file]).select("image_id").collect().to_series())
        self._ends, self._start, self._rows = np.cumsum(counts), 0, 0

    def row(self, position: int) -> tuple[NDArray[np.uint8], list[Any]]:
        """Return the large value of a row, and the others. Rows in the order of the file are read fastest.

        Raises:
            DamagedLakeError: the file is damaged.
        """
        at = position - self._start
        if not 0 <= at < self._rows:
            self._load(int(self._ends.searchsorted(position, "right")))
            at = position - self._start
        return self._data[self._offsets[at] : self._offsets[at + 1]], [column[at] for column in self._lists]

    def _load(self, group: int) -> None:
        with (
            storage.damage_errors(self._file),
            storage.open_parquet(self._file, page_checksum_verification=storage.is_bucket(self._file)) as opened,
        ):
            rows = opened.read_row_group(group, columns=[self._values, *self._columns])
        self._rows = len(rows)
        self._start = int(self._ends[group]) - self._rows
        self._lists = [rows[name].to_pylist() for name in self._columns]
        values = rows[self._values].cast(pa.large_binary()).combine_chunks()
        if values.null_count:
            # Imports pandas where that is installed.
            values = values.fill_null(b"")
        if isinstance(values, pa.ChunkedArray):
            values = pa.concat_arrays(values.chunks)
        offsets = np.frombuffer(values.buffers()[1], np.int64)[values.offset :][: self._rows + 1]
        self._offsets = offsets.tolist()
        self._data = np.frombuffer(values.buffers()[2] or b"", np.uint8)


class StoredImages:
    """The unchanged images of a shard, by position in the shard.

    Args:
        shard: the shard, whose contents are files of a folder.
        dataset: dataset name.
        split: split name.
        stored: the shards of the lake that may have its images. Damaged files of them are not used.
        with_originals: whether an image is only taken together with its original.
    """

    def __init__(
        self, shard: Encoded, dataset: str, split: str, stored: Sequence[StoredShard], *, with_originals: bool
    ) -> None:
        self._images: list[_Rows] = []
        self._originals: list[_Rows | None] = []
        # Images that were returned.
        self.taken = 0
        # By position in the shard: a stored shard, its row of images and its row of originals; -1 for none.
        self._at = np.full((len(shard.paths), 3), -1, np.int64)
        if not isinstance(shard.contents, Files) or not shard.contents.states or not shard.paths:
            return
        states = np.frombuffer(shard.contents.states, f"V{STATE_BYTES}")
        wanted = image_ids(dataset, split, shard.paths)
        for files in stored:
            try:
                images = _Rows(files.images, "pixels", _IMAGE)
                originals = (
                    _Rows(files.originals, "bytes", Facts._fields) if with_originals and files.originals else None
                )
            except DamagedLakeError:
                continue
            self._find(wanted, states, images, originals, with_originals=with_originals)

    def _find(
        self,
        wanted: NDArray[np.uint8],
        states: NDArray[np.void],
        images: _Rows,
        originals: _Rows | None,
        *,
        with_originals: bool,
    ) -> None:
        before = np.frombuffer(base64.b64decode(images.footer.get(STATES_KEY, b"")), f"V{STATE_BYTES}")
        if len(before) != len(images.ids) or (with_originals and originals is None):
            return
        row = find(images.ids, wanted)
        original = find(originals.ids, wanted) if originals else row
        same = (row >= 0) & (original >= 0)
        same[same] = before[row[same]] == states[same]
        self._at[same] = np.stack([np.full(same.sum(), len(self._images)), row[same], original[same]], axis=1)
        self._images.append(images)
        self._originals.append(originals)

    def __call__(self, position: int) -> StoredImage | None:
        """Return the stored image of a position; None if its file must be decoded."""
        shard, row, original_row = self._at[position].tolist()
        if shard < 0:
            return None
        originals = self._originals[shard]
        try:
            pixels, (height, width, channels, digest, file_size) = self._images[shard].row(row)
            data, facts = originals.row(original_row) if originals else (None, ())
        except DamagedLakeError:
            self._at[self._at[:, 0] == shard] = -1
            return None
        if digest is None:  # rows of imagelake 0.5
            return None
        self.taken += 1
        original = None if data is None else StoredOriginal(Facts(*facts), data.tobytes())
        return StoredImage(file_size, pixels.reshape(height, width, channels), digest, original)


def states_of(shard: Encoded, positions: NDArray[np.int64]) -> bytes:
    """Return the states of the source files of images, to be stored; empty if the shard has none.

    Args:
        shard: the shard.
        positions: of the images in the shard.
    """
    if not isinstance(shard.contents, Files) or not shard.contents.states:
        return b""
    return np.frombuffer(shard.contents.states, f"V{STATE_BYTES}")[positions].tobytes()
