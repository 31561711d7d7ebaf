"""Number the images of a lake: a number takes 4 bytes where an id takes 32, and sorts in the same order."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from pipeline.arrow_columns import to_binary
from pipeline.pixels import find, id_matrix, order_of_ids


class NumberedImages:
    """The images of a lake, numbered in the order of their ids.

    Args:
        images: columns image_id and label, dataset, split (Categorical); any order.

    Attributes:
        rows: columns image_id (the number, UInt32), label, dataset, split (Categorical), in the order of the numbers.
        order: (n,) int64: by number, the position in `images`.
    """

    def __init__(self, images: pl.DataFrame) -> None:
        ids = id_matrix(images["image_id"])
        self.order = order_of_ids(ids)
        self._ids = ids[self.order]
        self.rows = images.select(
            pl.int_range(pl.len(), dtype=pl.UInt32).alias("image_id"),
            pl.col("label", "dataset", "split").gather(self.order),
        ).with_columns(pl.col("image_id").set_sorted())

    def with_numbers(self, frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        """Replace ids by numbers; rows with an id of no image are left out."""
        numbers = {name: find(self._ids, id_matrix(frame[name])) for name in columns}
        known = np.logical_and.reduce([found >= 0 for found in numbers.values()])
        replaced = frame.with_columns(pl.Series(name, found, dtype=pl.Int64) for name, found in numbers.items())
        return replaced.filter(pl.Series(known)).with_columns(pl.col(columns).cast(pl.UInt32))

    def with_ids(self, frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        """Replace numbers by ids; null stays null."""
        return frame.with_columns(self._ids_of(frame[name]) for name in columns)

    def _ids_of(self, numbers: pl.Series) -> pl.Series:
        ids = pl.Series(numbers.name, to_binary(self._ids[numbers.drop_nulls().to_numpy()]), dtype=pl.Binary)
        if not numbers.null_count():
            return ids
        known = numbers.is_not_null()
        return ids.gather(pl.select(pl.when(known).then(known.cum_sum().cast(pl.Int64) - 1)).to_series())
