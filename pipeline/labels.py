"""The label of an image in a split: that of the image, or the one that a person corrected."""

import polars as pl

# Columns of the table splits that it is made of.
CORRECTED = ("corrected_label", "label_reason")


def label_in_split(label: str = "label") -> pl.Expr:
    """Return the label of a row of a split, joined with images: its corrected label, where it has a reason.

    Args:
        label: name of the column with the label of the image.
    """
    return (
        pl.when(pl.col("label_reason").is_null())
        .then(pl.col(label))
        .otherwise(pl.col("corrected_label"))
        .alias("label")
    )
