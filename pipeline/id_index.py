"""Find images by id again and again: the ids of a table in memory, sorted once."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline import storage
from pipeline.errors import LakeError
from pipeline.pixels import SHAPE, Conversion, Located, errors_of, id_matrix, one_shape, row_groups

_ID_BYTES = 16


class IdIndex:
    """Where the images of a table are, by id. It holds 36 bytes for each image of the table.

    Args:
        files: Parquet files of the images table, or of another one with a column image_id.
        with_shapes: whether `locate` needs the shapes of stored images.
    """

    def __init__(self, files: Sequence[str], *, with_shapes: bool) -> None:
        columns = SHAPE if with_shapes else []
        with errors_of(files):
            rows = storage.scan_parquet(files).select("image_id", *columns).collect()
            self._groups, self._rows = row_groups(files)
        halves = np.ascontiguousarray(id_matrix(rows["image_id"])).view("<u8")
        # Ids are random: the first eight bytes hardly ever repeat. Where they do, the others decide.
        self._order = np.lexsort((halves[:, 1], halves[:, 0]))
        self._first, self._second = halves[self._order, 0], halves[self._order, 1]
        self._ends = np.cumsum(self._rows)
        self._shapes = rows.select(pl.col(columns).cast(pl.Int32)) if with_shapes else None

    def locate(
        self,
        image_ids: pl.Series,
        *,
        check: bool = True,
        conversion: Conversion | None = None,
        ragged: bool = False,
    ) -> Located:
        """Find images; see `pipeline.pixels.locate`.

        Raises:
            LakeError: an id is not in the table, or the images have several shapes.
        """
        at = self._find(np.ascontiguousarray(id_matrix(image_ids)).view("<u8"))
        group = self._ends.searchsorted(at, side="right").astype(np.int32)
        row = (at - (self._ends - self._rows)[group]).astype(np.int32)
        if conversion is not None:
            return Located(self._groups, self._rows, group, row, conversion.shape, check, conversion)
        if self._shapes is None:
            raise ValueError("this index was made without shapes")
        shapes = self._shapes[at].cast(pl.Int64)
        if ragged:
            array = shapes.to_numpy()
            return Located(self._groups, self._rows, group, row, tuple(array.max(axis=0).tolist()), check, None, array)
        return Located(self._groups, self._rows, group, row, one_shape(shapes, np.arange(len(at))), check, conversion)

    def _find(self, wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the positions of ids, given as (n, 2) halves, in the table: (n,) int64."""
        start, stop = (self._first.searchsorted(wanted[:, 0], side) for side in ("left", "right"))
        at = start.astype(np.int64)
        for position in np.flatnonzero(stop - start > 1).tolist():
            # The second halves of ids with the same first half are sorted too.
            begin, end = int(start[position]), int(stop[position])
            at[position] += self._second[begin:end].searchsorted(wanted[position, 1])
        inside = np.minimum(at, max(len(self._order) - 1, 0))
        missing = at >= stop
        missing[~missing] = self._second[inside[~missing]] != wanted[~missing, 1]
        if missing.any():
            first = wanted[int(missing.argmax())].tobytes().hex()
            raise LakeError(
                f"{int(missing.sum()):,} of {len(wanted):,} ids are of no image of the lake, first {first}. List them "
                "with lake.scan('images').select('image_id')."
            )
        found: NDArray[np.int64] = self._order[inside]
        return found


def id_series(image_ids: pl.Series | Sequence[bytes | str]) -> pl.Series:
    """Return ids as a binary column.

    Raises:
        TypeError: they are neither bytes nor text, or they are a table.
        LakeError: one is no id, or given twice.
    """
    if isinstance(image_ids, bytes | str):
        raise TypeError("image_ids must be a sequence of ids, such as [id], not one id")
    if hasattr(type(image_ids), "columns"):
        raise TypeError("image_ids must be one column, such as lake.sql(...).pl()['image_id'], not a table")
    try:
        ids = image_ids if isinstance(image_ids, pl.Series) else pl.Series(image_ids, strict=True)
    except TypeError as error:
        raise TypeError("image_ids must be a sequence of ids, all as bytes or all as text") from error
    if ids.is_empty():
        return pl.Series(dtype=pl.Binary)
    if ids.dtype == pl.String:
        ids = ids.str.to_lowercase().str.decode("hex", strict=False)
    if ids.dtype != pl.Binary:
        raise TypeError(f"image_ids are of type {ids.dtype}; they must be 16 bytes or 32 hexadecimal digits each")
    if ids.null_count() or (ids.bin.size() != _ID_BYTES).any():
        raise LakeError("image_ids must be 16 bytes or 32 hexadecimal digits each")
    if not ids.is_unique().all():
        raise LakeError("image_ids has an id twice. Give each once: ids.unique(maintain_order=True)")
    return ids
