"""Lay out a table for the width of a terminal: columns side by side if they fit, else one block of lines per row."""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Longer text is cut, in characters: it would fill the screen.
_MAX_TEXT, _MAX_TEXT_IN_BLOCK = 200, 1000
# A cell is broken into lines of at least the first width. Words up to the second width are not broken.
_MIN_LINE, _MAX_WORD = 24, 40
# A cell may be broken after these characters, and at spaces.
_BREAK_AFTER = "/,;_-=&?"


class Column(NamedTuple):
    """A column of text.

    Attributes:
        name: name of the column.
        cells: text of every row, without line breaks or control characters.
        is_text: whether cells may be broken into lines; numbers may not.
    """

    name: str
    cells: Sequence[str]
    is_text: bool


def lay_out(columns: Sequence[Column], width: int) -> list[str] | None:
    """Lay out a table with one line per row, or several if long cells are broken.

    Args:
        columns: of equal length.
        width: characters per line.

    Returns:
        The lines; None if the columns do not fit into the width.
    """
    short = [column._replace(cells=[_cut(cell, _MAX_TEXT) for cell in column.cells]) for column in columns]
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
    """Lay out one block of lines per row: one line per column, or several for long text."""
    names = [_head(column.name, width // 2) for column in columns]
    indent = max(map(wide, names), default=0)
    room = width - indent - 3
    for number, cells in enumerate(zip(*(column.cells for column in columns), strict=True), start=1):
        title = f"── row {number:,} "
        yield title + "─" * max(0, min(width, indent + 3 + _MAX_WORD) - len(title))
        for name, cell in zip(names, cells, strict=True):
            for at, part in enumerate(_broken(_cut(cell, _MAX_TEXT_IN_BLOCK), room)):
                yield f"{_padded('' if at else name, indent)} │ {part}"


def wide(text: str) -> int:
    """Count the terminal columns of a text: two for an East Asian wide character, none for a combining mark."""
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
    return min(natural, max(wide(column.name), _MIN_LINE, min(words, _MAX_WORD)))


def _words(text: str) -> Iterator[str]:
    """Split a text after the characters at which it may be broken."""
    start = 0
    for at, char in enumerate(text, start=1):
        if char == " " or char in _BREAK_AFTER:
            yield text[start:at]
            start = at
    yield text[start:]


def _share_out(columns: Sequence[Column], natural: Sequence[int], room: int) -> list[int] | None:
    """Give each column its natural width, or an equal share if that is smaller; None if columns become too narrow."""
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
    """Break a text into lines of a width, between words unless a word is longer than a line."""
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
    """Return the start of a text that fits into the width, and at least one character."""
    size = 1
    while size < len(text) and wide(text[: size + 1]) <= width:
        size += 1
    return text[:size]
