"""Numbered columns of a CSV and the pictures that they make: pixel0, pixel1, ...; 1x1, 1x2, ...; r0c0, r0c1, ..."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

Shape = tuple[int, int, int]
Size = tuple[int, int] | None

# Numbered columns of any other name, or none, are taken for a picture from 8x8 on: UCI's tables of 16 measurements are
# not 4x4. A grid of numbers (r0c0, 1x1) says more.
FEWEST, FEWEST_IN_GRID = 64, 16
_DIGITS = re.compile(r"\d+")
_PIXEL_WORDS = re.compile(r"pix|px")
_COLUMN_WORDS, _ROW_WORDS = ("x", "c", "col", "column", "w", "j"), ("y", "r", "row", "h", "i")
_Group = Mapping[tuple[int, ...], int]


class Pixels(NamedTuple):
    """Columns of pixels in the order of the picture, and the (height, width, channels) that they make."""

    positions: tuple[int, ...]
    shape: Shape
    sure: bool = True


def series_of(names: Sequence[str], where: Sequence[int], size: Size, *, asked: bool = False) -> list[Pixels]:
    """List the series of numbered columns that make a picture, each in the order of its numbers.

    Args:
        names: all columns.
        where: positions of those that may be pixels.
        size: (height, width) that the recipe asks for, which is tried first.
        asked: whether the recipe names these columns; otherwise small series need a name that says pixel.
    """
    found = (_picture_of(words, group, size, asked=asked) for words, group in _groups(names, where).items())
    return [pixels for pixels in found if pixels is not None]


def single_series(names: Sequence[str], where: Sequence[int]) -> bool:
    """Tell whether columns are one series that counts up by one from each column to the next."""
    groups = _groups(names, where)
    (group,) = groups.values() if len(groups) == 1 else ({},)
    numbers = list(group)
    return len(group) == len(where) and numbers == [(numbers[0][0] + at,) for at in range(len(numbers))]


def shapes_of(pixels: int, size: Size) -> Iterator[Shape]:
    """List the (height, width, channels) that a number of pixels makes: of the recipe's size, then square."""
    return (shape for tried in dict.fromkeys((size, None)) if (shape := fit(tried, pixels)))


def fit(size: Size, pixels: int) -> Shape | None:
    """Shape a number of pixels as (height, width, channels) of a size, or of a square; None where they do not fit."""
    sides = ((c, size or (math.isqrt(max(0, pixels) // c),) * 2) for c in (1, 3))
    return next(((h, w, c) for c, (h, w) in sides if h * w * c == pixels > 1), None)


def why_no_series(names: Sequence[str], where: Sequence[int], size: Size) -> str:
    """Say why no columns are taken for a picture."""
    groups = _groups(names, where)
    largest = max(groups.values(), key=len, default={})
    if len(largest) < 2:  # noqa: PLR2004 - one column is no series
        return "its header has no numbered columns"
    ends = f"{names[min(largest.values())]} to {names[max(largest.values())]}"
    if len(min(largest)) > 1:
        return f"the numbers in its {len(largest)} columns {ends} are not the rows and columns of a picture"
    there = {number for (number,) in largest}
    missing = next((number for number in range(min(there), max(there)) if number not in there), None)
    if missing is not None:
        return f"its {len(largest)} columns {ends} are not numbered without gaps: number {missing} is missing"
    if next(shapes_of(len(largest), size), None) is None:
        return f"its {len(largest)} columns {ends} make no picture"
    return f"its {len(largest)} columns {ends} are too few to be taken for pixels by their names"


def _groups(names: Sequence[str], where: Sequence[int]) -> Mapping[tuple[str, ...], _Group]:
    """Group numbered columns by the words in their names: position by numbers, without numbers that are all equal."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for at in where:
        words = tuple(word.strip().lower() for word in _DIGITS.split(names[at]))
        if len(words) > 1:
            groups.setdefault(words, []).append(at)
    found = {}
    for words, members in groups.items():
        numbers = [tuple(int(digits[:9]) for digits in _DIGITS.findall(names[at])) for at in members]
        varied = [part for part in zip(*numbers, strict=True) if len(set(part)) > 1]
        keyed = dict(zip(zip(*varied, strict=True), members, strict=True)) if varied else {}
        if len(keyed) == len(members):
            found[words] = keyed
    return found


def _picture_of(words: Sequence[str], group: _Group, size: Size, *, asked: bool) -> Pixels | None:
    """Make a picture of numbered columns: pixel0, pixel1, ...; 1x1, 1x2, ... of row and column; or with a channel."""
    sizes = [len(set(numbers)) for numbers in zip(*group, strict=True)]
    spans = [max(numbers) - min(numbers) + 1 for numbers in zip(*group, strict=True)]
    if spans != sizes or math.prod(sizes) != len(group):
        return None
    order = sorted(group)
    shape: Shape | None = None
    if len(sizes) == 1:
        shape = next(shapes_of(sizes[0], size), None)
    elif sizes[1:] == [3]:
        shape = next((shape for shape in shapes_of(len(group), size) if shape[2] == sizes[1]), None)
    elif sizes[2:] in ([], [1], [3]):
        swapped = _is_column_first(words, list(group))
        if swapped is not None:
            order = sorted(group, key=lambda key: (key[1], key[0], *key[2:])) if swapped else order
            height, width = sizes[1::-1] if swapped else sizes[:2]
            shape = (height, width, sizes[2] if len(sizes) > 2 else 1)  # noqa: PLR2004 - row, column, channel
    if shape is None:
        return None
    sure = asked or bool(_PIXEL_WORDS.search("".join(words)))
    fewest = FEWEST if len(sizes) == 1 else FEWEST_IN_GRID
    if not sure and math.prod(shape) < fewest and shape[:2] != size:
        return None
    return Pixels(tuple(group[key] for key in order), shape, sure)


def _is_column_first(words: Sequence[str], keys: Sequence[tuple[int, ...]]) -> bool | None:
    """Tell whether names hold the column before the row, as x0y0; None where neither names nor their order say so."""
    one, two = (re.sub(r"[^a-z]", "", word) for word in words[-len(keys[0]) - 1 :][:2])
    if one.endswith(_COLUMN_WORDS) and two.endswith(_ROW_WORDS):
        return True
    if (one.endswith(_ROW_WORDS) and two.endswith(_COLUMN_WORDS)) or keys[0][0] == keys[1][0]:
        return False
    return None
