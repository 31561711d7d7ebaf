"""Find the images that numbered columns make, by their names: pixel0, pixel1, ...; 1x1, 1x2, ...; r0c0, r0c1, ..."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

_DIGITS = re.compile(r"\d+")
_PIXEL_WORDS = re.compile(r"pix|px")
_COLUMN_WORDS, _ROW_WORDS = ("x", "c", "col", "column", "w", "j"), ("y", "r", "row", "h", "i")
# Numbered columns with other names, or without names, are pixels from 8x8 on: UCI's tables of 16 measurements are not
# 4x4 images. Names with row and column (r0c0, 1x1) are stronger evidence.
MIN_PIXELS, MIN_PIXELS_IN_GRID = 64, 16

Shape = tuple[int, int, int]
Size = tuple[int, int] | None
# Position of a column by the numbers in its name.
_NumberedColumns = Mapping[tuple[int, ...], int]


class PixelColumns(NamedTuple):
    """Positions of columns of pixels in the order of the image, and the (height, width, channels) that they make."""

    positions: tuple[int, ...]
    shape: Shape
    is_certain: bool = True


def find_pixel_series(
    names: Sequence[str], positions: Sequence[int], size: Size, *, from_recipe: bool = False
) -> list[PixelColumns]:
    """List the series of numbered columns that make an image, each in the order of its numbers.

    Args:
        names: names of all columns.
        positions: positions of the columns that may be pixels.
        size: (height, width) of the recipe, which is tried first.
        from_recipe: whether the recipe names these columns; otherwise small series need a name that says pixel.
    """
    groups = _group_numbered_columns(names, positions)
    found = (_pixel_series(words, group, size, from_recipe=from_recipe) for words, group in groups.items())
    return [pixels for pixels in found if pixels is not None]


def is_single_series(names: Sequence[str], positions: Sequence[int]) -> bool:
    """Return whether columns are one series whose numbers increase by one from each column to the next."""
    groups = _group_numbered_columns(names, positions)
    (group,) = groups.values() if len(groups) == 1 else ({},)
    numbers = list(group)
    return len(group) == len(positions) and numbers == [(numbers[0][0] + step,) for step in range(len(numbers))]


def image_shapes(pixels: int, size: Size) -> Iterator[Shape]:
    """List the (height, width, channels) that a number of pixels makes: of the recipe's size, then square."""
    return (shape for tried in dict.fromkeys((size, None)) if (shape := image_shape(tried, pixels)))


def image_shape(size: Size, pixels: int) -> Shape | None:
    """Shape a number of pixels as (height, width, channels) of a size, or of a square; None if it does not fit."""
    sides = ((c, size or (math.isqrt(max(0, pixels) // c),) * 2) for c in (1, 3))
    return next(((h, w, c) for c, (h, w) in sides if h * w * c == pixels > 1), None)


def explain_no_series(names: Sequence[str], positions: Sequence[int], size: Size) -> str:
    groups = _group_numbered_columns(names, positions)
    largest = max(groups.values(), key=len, default={})
    if len(largest) < 2:  # noqa: PLR2004 - one column is not a series
        return "its header has no numbered columns"
    ends = f"{names[min(largest.values())]} to {names[max(largest.values())]}"
    if len(min(largest)) > 1:
        return f"the numbers in its {len(largest)} columns {ends} are not the rows and columns of an image"
    numbers = {number for (number,) in largest}
    missing = next((number for number in range(min(numbers), max(numbers)) if number not in numbers), None)
    if missing is not None:
        return f"its {len(largest)} columns {ends} are not numbered without gaps: number {missing} is missing"
    if next(image_shapes(len(largest), size), None) is None:
        return f"its {len(largest)} columns {ends} make no image"
    return f"its {len(largest)} columns {ends} are too few to be taken for pixels by their names"


def _group_numbered_columns(
    names: Sequence[str], positions: Sequence[int]
) -> Mapping[tuple[str, ...], _NumberedColumns]:
    """Group numbered columns by the words in their names. Numbers that are the same in all columns are left out."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for position in positions:
        words = tuple(word.strip().lower() for word in _DIGITS.split(names[position]))
        if len(words) > 1:
            groups.setdefault(words, []).append(position)
    found = {}
    for words, members in groups.items():
        numbers = [tuple(int(digits[:9]) for digits in _DIGITS.findall(names[position])) for position in members]
        varied = [part for part in zip(*numbers, strict=True) if len(set(part)) > 1]
        by_numbers = dict(zip(zip(*varied, strict=True), members, strict=True)) if varied else {}
        if len(by_numbers) == len(members):
            found[words] = by_numbers
    return found


def _pixel_series(
    words: Sequence[str], group: _NumberedColumns, size: Size, *, from_recipe: bool
) -> PixelColumns | None:
    """Make an image of numbered columns: pixel0, pixel1, ...; 1x1, 1x2, ... of row and column; or with a channel."""
    sizes = [len(set(numbers)) for numbers in zip(*group, strict=True)]
    spans = [max(numbers) - min(numbers) + 1 for numbers in zip(*group, strict=True)]
    if spans != sizes or math.prod(sizes) != len(group):
        return None
    order = sorted(group)
    shape: Shape | None = None
    if len(sizes) == 1:
        shape = next(image_shapes(sizes[0], size), None)
    elif sizes[1:] == [3]:
        shape = next((shape for shape in image_shapes(len(group), size) if shape[2] == sizes[1]), None)
    elif sizes[2:] in ([], [1], [3]):
        column_first = _is_column_first(words, list(group))
        if column_first is not None:
            order = sorted(group, key=lambda key: (key[1], key[0], *key[2:])) if column_first else order
            height, width = sizes[1::-1] if column_first else sizes[:2]
            shape = (height, width, sizes[2] if len(sizes) > 2 else 1)  # noqa: PLR2004 - row, column, channel
    if shape is None:
        return None
    is_certain = from_recipe or bool(_PIXEL_WORDS.search("".join(words)))
    fewest = MIN_PIXELS if len(sizes) == 1 else MIN_PIXELS_IN_GRID
    if not is_certain and math.prod(shape) < fewest and shape[:2] != size:
        return None
    return PixelColumns(tuple(group[key] for key in order), shape, is_certain)


def _is_column_first(words: Sequence[str], keys: Sequence[tuple[int, ...]]) -> bool | None:
    """Return whether names have the column before the row, as in x0y0; None if neither names nor order show it."""
    one, two = (re.sub(r"[^a-z]", "", word) for word in words[-len(keys[0]) - 1 :][:2])
    if one.endswith(_COLUMN_WORDS) and two.endswith(_ROW_WORDS):
        return True
    if (one.endswith(_ROW_WORDS) and two.endswith(_COLUMN_WORDS)) or keys[0][0] == keys[1][0]:
        return False
    return None
