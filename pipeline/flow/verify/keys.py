"""Hold the index of a shard against what its pixels give."""

from collections.abc import Iterator, Sequence

import polars as pl
import pyarrow as pa

from pipeline.dedup.index import sort_index
from pipeline.flow.verify.check import MOST, Fault
from pipeline.flow.verify.whole import Named

# What the index holds of an image, but for its label.
_HELD = ("bucket", "key", "signature", "vector")


def compare_index(
    file: Named, held: Sequence[pa.Table], made: Sequence[pa.Table], images: Named, known: pl.DataFrame
) -> Iterator[Fault]:
    """Compare a file of the index with the rows that the images give, in every value and in their order.

    Args:
        file: the file.
        held: its row groups.
        made: what the images give; no tables where that cannot be told, as of the user's vectors.
        images: the file of the images.
        known: columns image_id, path and label of all of them.

    Yields:
        What is wrong: entries that are missing, wrong or of no image; labels that are not those of the images.
    """
    found = pa.concat_tables(held) if held else sort_index(list(made)[:0]) if made else None
    if found is None or (made and found.equals(sort_index(list(made)))):
        return
    rows = pl.DataFrame(found)
    expected = pl.DataFrame(pa.concat_tables(made)) if made else known
    both = rows.join(expected, on="image_id", suffix="_made")
    same = [pl.col(name).eq_missing(pl.col(f"{name}_made")) for name in _HELD] if made else [pl.lit(value=True)]
    wrong = {
        "has no keys of images": expected.join(rows, on="image_id", how="anti"),
        "has wrong keys": both.filter(~pl.all_horizontal(same)),
        "has images twice": rows.filter(pl.col("image_id").is_duplicated()),
    }
    faults = [_fault(file, text, hurt, known) for text, hurt in wrong.items() if len(hurt)]
    extra = len(rows.join(expected, on="image_id", how="anti"))
    faults += [file.fault("changed", "has keys of what is no image of its shard", extra)] if extra else []
    # Which of the two is right cannot be told: reading the images again makes both anew.
    other = both.filter(~pl.col("label").eq_missing(pl.col("label_made")))
    faults += [_fault(images, "its labels are not those of the index", other, known)] if len(other) else []
    yield from faults or ([file.fault("changed", "its rows are not in their order", len(rows))] if made else [])


def _fault(file: Named, text: str, rows: pl.DataFrame, known: pl.DataFrame) -> Fault:
    named = rows.head(MOST).select("image_id").join(known, on="image_id", how="left", maintain_order="left")
    return file.fault("changed", text, len(rows), named["path"].drop_nulls().to_list())
