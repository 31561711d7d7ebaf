"""Format numbers, names and times for the pages."""

from datetime import datetime
from typing import Any

from pipeline.progress import plain

_MISSING = "–"  # noqa: RUF001 - an en dash marks an empty cell
_MINUS = "\N{MINUS SIGN}"


def number(value: int | None) -> str:
    """Format a count with thousands separators."""
    return _MISSING if value is None else f"{value:,}"


def percent(value: float | None, digits: int = 1) -> str:
    """Format a fraction of 1 as a percentage."""
    return _MISSING if value is None else f"{value * 100:.{digits}f} %"


def certainty(value: float) -> str:
    """Format a probability as a whole percentage; values just below 1 become "> 99 %", not "100 %"."""
    return "> 99 %" if value < 1 and round(value * 100) == 100 else f"{value * 100:.0f} %"  # noqa: PLR2004 - percent


def points(value: float | None) -> str:
    """Format a difference of two fractions of 1 in percentage points, with its sign."""
    if value is None:
        return _MISSING
    # Rounded first, so that a tiny negative value is written as 0.00 without a sign.
    return f"{round(value * 100, 2) + 0:+.2f}".replace("-", _MINUS).replace("+0.00", "0.00")


def ends(low: float, high: float, digits: int = 1) -> str:
    """Format the ends of an interval of fractions of 1, in percent or percentage points, without the unit."""
    return " to ".join(f"{round(end * 100, digits) + 0:.{digits}f}".replace("-", _MINUS) for end in (low, high))


def decimal(value: float | None) -> str:
    """Format a mean or a standard deviation with four digits after the point."""
    return _MISSING if value is None else f"{value:.4f}".replace("-", _MINUS)


def moment(value: str | None) -> str:
    """Format an ISO time as text, such as "3 May 2026, 09:30 UTC"."""
    return "" if value is None else f"{datetime.fromisoformat(value):%-d %B %Y, %H:%M} UTC"


def span(ends: list[int]) -> str:
    """Format the smallest and the largest value as one range; an empty string for an empty list."""
    return " to ".join(number(end) for end in sorted(set(ends)))


def duration(seconds: float | None) -> str:
    """Format a duration with two or three digits."""
    if seconds is None:
        return _MISSING
    if seconds < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - two digits are enough
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"


def mebibytes(value: int | None) -> str:
    """Format an amount of memory in MiB."""
    if value is None:
        return _MISSING
    return f"{value / 2**20:,.0f} MiB" if value >= 2**20 else "< 1 MiB"


def figure(value: float) -> str:
    """Format a number of any size with four digits; large numbers have no exponent."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"  # noqa: PLR2004 - four digits
    return text.replace("-", _MINUS)


def score(value: float) -> str:
    """Format a score with four digits; values just below 1 become ">0.9999", not "1.0000"."""
    if value == 1:
        return "1"
    return ">0.9999" if (text := f"{value:.4f}") == "1.0000" and value < 1 else text


def shorten(text: str, limit: int) -> str:
    """Cut the middle out of a long name, and escape unprintable characters."""
    shown = plain(text)
    if len(shown) <= limit:
        return shown
    tail = limit // 2
    return shown[: limit - tail - 1] + "…" + shown[-tail:]


def escape_unprintable(value: Any) -> Any:  # noqa: ANN401 - jinja passes any value of a template
    """Escape unprintable characters in any text of a template, because it may come from an untrusted archive.

    HTML of a macro or a chart is returned unchanged.
    """
    return plain(value) if type(value) is str else value
