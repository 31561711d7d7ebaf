"""Which end of the rows of a CSV without a header holds the label: the values decide, or nothing does."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

LARGEST = 255
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
WITH_POINT = re.compile(r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?")
# Fewer rows do not show which end holds labels.
_FEWEST_ROWS = 30
# No class has a larger share of the rows; the corner of a picture has one value in so many of them.
_BALANCED, _PREVAILING = 0.6, 0.9
_MOST_CLASSES = 100


class End(NamedTuple):
    """What the first or the last column of a file holds.

    Attributes:
        at: its position.
        pixels: most values are whole numbers from 0 to 255.
        labels: the values may be labels.
        like_classes: pixels could not look so: few small numbers, none of which prevails.
        like_pixels: labels could not look so: nearly always one value, or numbers with large gaps.
    """

    at: int
    pixels: bool
    labels: bool
    like_classes: bool = False
    like_pixels: bool = False


def is_pixel(value: str) -> bool:
    """Tell whether a field holds a pixel: a whole number from 0 to 255, also as 255.0 or 2.55e+02."""
    if value.isascii() and value.isdecimal():  # Python refuses to read a number of thousands of digits
        return int(value.lstrip("0")[:4] or "0") <= LARGEST
    number = float(value) if WITH_POINT.fullmatch(value) else math.inf
    return 0 <= number <= LARGEST and number.is_integer()


def end_of(at: int, values: Sequence[str]) -> End:
    """Look at the values of the column at a position, which is the first or the last."""
    counts = Counter(values)
    rows, distinct = len(values), len(counts)
    pixels = {value: count for value, count in counts.items() if is_pixel(value)}
    if rows and sum(pixels.values()) * 2 <= rows:
        fractions = sum(count for value, count in counts.items() if _is_fraction(value))
        labels = fractions * 2 <= rows and not _is_index(values) and distinct <= max(_MOST_CLASSES, rows // 2)
        return End(at, pixels=False, labels=labels)
    if rows < _FEWEST_ROWS or _is_index(values):
        return End(at, pixels=True, labels=True)
    prevailing, largest = max(counts.values()) / rows, max(map(float, pixels))
    few = distinct <= _MOST_CLASSES and largest <= max(9, 2 * distinct)
    gaps = largest > max(_MOST_CLASSES, 2 * distinct) or (distinct > _MOST_CLASSES and largest >= LARGEST - 5)
    return End(
        at,
        pixels=True,
        labels=True,
        like_classes=few and distinct > 1 and prevailing <= _BALANCED,
        like_pixels=gaps or prevailing >= _PREVAILING,
    )


def _is_fraction(value: str) -> bool:
    return bool(NUMBER.fullmatch(value)) and not float(value).is_integer()


def _is_index(values: Sequence[str]) -> bool:
    """Tell whether values count the rows, from any number on."""
    if len(values) < 3 or not all(NUMBER.fullmatch(value) for value in values):  # noqa: PLR2004 - two count nothing
        return False
    start = float(values[0])
    return all(float(value) == start + at for at, value in enumerate(values))


def choose_end(first: End, last: End, inner: tuple[End, End]) -> tuple[int | None, str]:
    """Tell which of two ends is the label.

    Text, or numbers that no pixel has, are labels. Otherwise one end must look like classes, and both the column beside
    it and the other end like corners of a picture; where only some of this holds, nothing is decided.

    Args:
        first: the first column.
        last: the last column.
        inner: the columns beside them.

    Returns:
        Its position, or None and why.
    """
    if first.pixels != last.pixels:
        end = last if first.pixels else first
        what = f"column {end.at} holds neither pixels nor labels (fractions, row numbers or too many different values)"
        return (end.at, "") if end.labels else (None, what)
    if not first.pixels:
        return None, f"columns {first.at} and {last.at} both hold values that are no pixels"
    for end, beside, other in ((first, inner[0], last), (last, inner[1], first)):
        if end.like_classes and beside.like_pixels and other.like_pixels:
            return end.at, ""
    return None, "the label may be the first or the last column"
