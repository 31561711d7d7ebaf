"""Parts of the test role that a model is scored on: all of it, and what overlaps with training and what does not."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


class Part(NamedTuple):
    """A part of the test role.

    Attributes:
        eval_on: original, sanitized or overlap.
        rule: by which it was told apart; None for the split's own sanitizing, and for the original.
        rows: (n,) bool, true for the test images in it.
    """

    eval_on: str
    rule: str | None
    rows: Mask


def find_overlaps(clusters: pl.LazyFrame, train: pl.Series, test: pl.Series, rules: Iterable[str]) -> dict[str, Mask]:
    """Find, rule by rule, the test images whose picture the model may have been trained on.

    Args:
        clusters: rows of the clusters table; rule, cluster_id and image_id are read.
        train: ids of all images that may be trained on, not only of those that a sample draws.
        test: ids of the test images.
        rules: rules to tell by.

    Returns:
        By rule, in the order of `rules`: (n,) bool, in the order of `test`; true where the image shares a cluster of
        that rule with an image of `train`. All false for a rule without clusters.
    """
    members = clusters.select("rule", "cluster_id", "image_id")
    seen = members.join(train.to_frame("image_id").lazy(), on="image_id", how="semi")
    touched = (
        members.join(test.to_frame("image_id").lazy(), on="image_id", how="semi")
        .join(seen, on=["rule", "cluster_id"], how="semi")
        .select("rule", "image_id")
        .collect()
    )
    return {rule: test.is_in(touched.filter(rule=rule)["image_id"].implode()).to_numpy() for rule in rules}


def name_parts(kept: Mask, overlaps: Mapping[str, Mask]) -> list[Part]:
    """Name the parts to score on.

    Args:
        kept: (n,) bool, whether the split's own sanitizing keeps each test image.
        overlaps: made by `find_overlaps`.

    Returns:
        The original; then for the split's own sanitizing (rule None) and for every rule the sanitized and the overlap
        part, which share out the original without remainder. A part may be empty.
    """
    told: list[tuple[str | None, Mask]] = [(None, ~kept), *overlaps.items()]
    halves = [part for rule, rows in told for part in (Part("sanitized", rule, ~rows), Part("overlap", rule, rows))]
    return [Part("original", None, np.ones(len(kept), dtype=np.bool_)), *halves]
