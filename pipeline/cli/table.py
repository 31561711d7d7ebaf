"""Lines of a table that fit a terminal: side by side where they fit, else a block of lines for every row."""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Text that is longer is cut: it would push all else out of sight.
_LONGEST, _LONGEST_IN_BLOCK = 200, 1000
# A cell is broken into lines of this width or more, and words up to this width stay whole.
_NARROW, _WORD = 24, 40
# Where a cell may be broken, besides spaces.
_AFTER = "/,;_-=&?"


class Column(NamedTuple):
    """A column of text.

    Attributes:
        name: its name.
        cells: what is in it, row by row, fit for one line of a terminal.
        is_text: whether cells may be broken into lines; numbers may not.
    """

    name: str
    cells: Sequence[str]
    is_text: bool


def lay_out(columns: Sequence[Column], width: int) -> list[str] | None:
    """Draw a table with a row a line, or a few where long cells are broken.

    Args:
        columns: equally long.
        width: characters of a line.

    Returns:
        Its lines; None where it cannot be that narrow and be read.
    """
    short = [column._replace(cells=[_cut(cell, _LONGEST) for cell in column.cells]) for column in columns]
    natural = [max(map(wide, (column.name, *column.cells))) for column in short]
    room = width - 3 * len(columns) - 1
    widths = natural if sum(natural) <= room else _share_out(short, natural, room)
    if widths is None:
        return None
    lines = [_rule("┌─", "─┬─", "─┐", "─", widths), *_row([column.name for column in short], widths)]
    lines.append(_rule("╞═", "═╪═", "═╡", "═", widths))
    for cells in zip(*(column.cells for column in short), strict=True):
        lines += _row(cells, widths)
    return [*lines, _rule("└─", "─┴─", "─┘", "─", widths)]


def stack(columns: Sequence[Column], width: int) -> Iterator[str]:
    """Draw a block of lines for every row: a line a column, or a few where its text is long."""
    names = [_head(column.name, width // 2) for column in columns]
    indent = max(map(wide, names), default=0)
    room = width - indent - 3
    for number, cells in enumerate(zip(*(column.cells for column in columns), strict=True), start=1):
        title = f"── row {number:,} "
        yield title + "─" * max(0, min(width, indent + 3 + _WORD) - len(title))
        for name, cell in zip(names, cells, strict=True):
            for at, part in enumerate(_broken(_cut(cell, _LONGEST_IN_BLOCK), room)):
                yield f"{_padded('' if at else name, indent)} │ {part}"


def wide(text: str) -> int:
    """Count the columns of a terminal that a text takes: two for a letter of East Asia, none for a mark on a letter."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) or char in "\u200c\u200d" else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _least(column: Column, natural: int) -> int:
    if not column.is_text:
        return natural
    words = max((wide(word) for cell in column.cells for word in _words(cell)), default=0)
    return min(natural, max(wide(column.name), _NARROW, min(words, _WORD)))


def _words(text: str) -> Iterator[str]:
    """Cut a text into parts that are better not broken."""
    start = 0
    for at, char in enumerate(text, start=1):
        if char == " " or char in _AFTER:
            yield text[start:at]
            start = at
    yield text[start:]


def _share_out(columns: Sequence[Column], natural: Sequence[int], room: int) -> list[int] | None:
    """Give every column what it takes, or as much as all others that do not get that; None where it is too little."""
    least = [_least(column, most) for column, most in zip(columns, natural, strict=True)]
    if sum(least) > room:
        return None
    level = max(natural)
    while sum(widths := [min(n, max(m, level)) for n, m in zip(natural, least, strict=True)]) > room:
        level -= 1
    return widths


def _rule(start: str, between: str, end: str, line: str, widths: Sequence[int]) -> str:
    return start + between.join(line * width for width in widths) + end


def _row(cells: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    parts = [list(_broken(cell, width)) for cell, width in zip(cells, widths, strict=True)]
    for at in range(max(map(len, parts))):
        inside = (_padded(part[at] if at < len(part) else "", width) for part, width in zip(parts, widths, strict=True))
        yield f"│ {' ┆ '.join(inside)} │"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - wide(text))


def _broken(text: str, width: int) -> Iterator[str]:
    """Break a text into lines of a width, between words where these are short enough."""
    if wide(text) <= width:
        yield text
        return
    line = ""
    for word in _words(text):
        rest = word
        if wide(line + rest.rstrip(" ")) > width and line:
            yield line.rstrip(" ")
            line = ""
        while wide(rest) > width:
            head = _head(rest, width)
            yield head
            rest = rest[len(head) :]
        line += rest
    if line:
        yield line.rstrip(" ")


def _head(text: str, width: int) -> str:
    """Take as much of a text as a line holds, and a character at least."""
    size = 1
    while size < len(text) and wide(text[: size + 1]) <= width:
        size += 1
    return text[:size]
