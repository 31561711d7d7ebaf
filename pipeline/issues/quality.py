"""Scores of pictures from their measurements and sizes. `IssuesPart` in the recipe defines each score."""

from collections.abc import Mapping

import polars as pl

from pipeline.recipe.issues import QUALITY

# Kinds that a blank picture does not have: it has no contrast and no edges to speak of.
NOT_OF_BLANK = tuple(kind for kind in QUALITY if kind not in {"blank", "odd_size", "odd_aspect"})
# Share of edges from which on a picture has full information.
_ENOUGH_EDGES = 0.02
# Gray levels that the steepest places must rise over four pixels, for their sharpness to be measured.
_MIN_RISE = 16
# The part of a rise over four pixels that one pixel has in an edge that is not sharp at all.
_EVEN = 0.25
# Columns of the table images, besides the measurements, that scores are made of.
FACTS = ("image_id", "label", "dataset", "height", "width")


def find_quality_issues(images: pl.LazyFrame, thresholds: Mapping[str, float]) -> pl.DataFrame:
    """List the images whose score reaches the threshold of a kind.

    Args:
        images: every image of the lake: the columns of `FACTS`, area (of its original file, in pixels), and the columns
            of the table measurements.
        thresholds: by kind of `QUALITY`, the score from which on an image is listed. That of blank decides which images
            have no kind of `NOT_OF_BLANK`; without it, none is blank.

    Returns:
        Columns image_id, score (Float32) and kind, ordered by kind, falling score and id.
    """
    blank = thresholds.get("blank")
    scored = images.select("image_id", *(score_of(kind, blank).alias(kind) for kind in thresholds)).collect()
    listed = [
        scored.filter(pl.col(kind) >= threshold)
        .select("image_id", score=pl.col(kind).cast(pl.Float32), kind=pl.lit(kind))
        .sort(pl.col("score"), "image_id", descending=[True, False])
        for kind, threshold in thresholds.items()
    ]
    empty = pl.DataFrame(schema={"image_id": pl.Binary, "score": pl.Float32, "kind": pl.String})
    return pl.concat([empty, *listed])


def score_of(kind: str, blank: float | None) -> pl.Expr:
    """Return the score of a kind of `QUALITY`, 0 to 1, Float64.

    Args:
        kind: the kind.
        blank: share of uniform pixels from which on a picture is blank, and 0 for `NOT_OF_BLANK`; None if none is.

    Raises:
        ValueError: the kind is not one of `QUALITY`.
    """
    if kind not in QUALITY:
        raise ValueError(f"{kind!r} is not one of {', '.join(QUALITY)}")
    score = _SCORES[kind].clip(0, 1)
    if blank is None or kind not in NOT_OF_BLANK:
        return score
    return pl.when(_number("uniform") >= blank).then(0.0).otherwise(score)


def _number(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Float64)


def _off(value: pl.Expr) -> pl.Expr:
    """Compare values with the median of their class: 1 - 1 / r for a value that is r times larger or smaller."""
    median = value.median().over("dataset", "label")
    return 1 - pl.min_horizontal(value / median, median / value)


_MIDDLE = (_number("low") + _number("high")) / 2
_USUAL_BORDER = _number("border").median().over("dataset")
# Two gray levels with a middle near black or white cannot differ by much.
_POSSIBLE = pl.max_horizontal(2 * pl.min_horizontal(_MIDDLE, 255 - _MIDDLE), 1)
_SCORES = {
    "blank": _number("uniform"),
    "low_information": 1 - _number("edges") / _ENOUGH_EDGES,
    "dark": 1 - _number("high") / 255,
    "bright": _number("low") / 255,
    "low_contrast": 1 - (_number("high") - _number("low")) / _POSSIBLE,
    "blurry": pl.when(_number("rise") >= _MIN_RISE)
    .then(1 - (_number("step") / _number("rise") - _EVEN) / (1 - _EVEN))
    .otherwise(0.0),
    "border": pl.when(_USUAL_BORDER < 1).then((_number("border") - _USUAL_BORDER) / (1 - _USUAL_BORDER)).otherwise(0.0),
    "odd_size": _off(_number("area")),
    "odd_aspect": _off(_number("width") / _number("height")),
}
