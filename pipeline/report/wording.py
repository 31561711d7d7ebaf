"""How numbers, names and moments are written on the page."""

from datetime import datetime
from typing import Any

from pipeline.progress import plain

_MISSING = "–"  # noqa: RUF001 - an en dash is what stands in an empty cell


def number(value: int | None) -> str:
    """Write a count with thousands separators."""
    return _MISSING if value is None else f"{value:,}"


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share of one as a percentage."""
    return _MISSING if value is None else f"{value * 100:.{digits}f} %"


def certainty(value: float) -> str:
    """Write a probability in whole percents, never as the 100 that it almost is."""
    return "> 99 %" if value < 1 and round(value * 100) == 100 else f"{value * 100:.0f} %"  # noqa: PLR2004 - percent


def points(value: float | None) -> str:
    """Write a difference of two shares of one in percentage points, with its sign."""
    if value is None:
        return _MISSING
    # Rounded first, so that nothing is never less than nothing.
    return f"{round(value * 100, 2) + 0:+.2f}".replace("-", "\N{MINUS SIGN}").replace("+0.00", "0.00")


def ends(low: float, high: float, digits: int = 1) -> str:
    """Write the two ends of an interval of shares of one, in percent or percentage points, without the unit."""
    return " to ".join(
        f"{round(end * 100, digits) + 0:.{digits}f}".replace("-", "\N{MINUS SIGN}") for end in (low, high)
    )


def decimal(value: float | None) -> str:
    """Write a mean or a standard deviation, with a real minus sign."""
    return _MISSING if value is None else f"{value:.4f}".replace("-", "\N{MINUS SIGN}")


def moment(value: str | None) -> str:
    """Write an ISO moment for a person."""
    return "" if value is None else f"{datetime.fromisoformat(value):%-d %B %Y, %H:%M} UTC"


def span(ends: list[int]) -> str:
    """Write smallest and largest as one range; empty without any."""
    return " to ".join(number(end) for end in sorted(set(ends)))


def duration(seconds: float | None) -> str:
    """Write how long something took, to two or three digits."""
    if seconds is None:
        return _MISSING
    if seconds < 60:  # noqa: PLR2004 - from a minute on, in minutes
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - two digits will do
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"


def mebibytes(value: int | None) -> str:
    """Write an amount of memory in MiB."""
    if value is None:
        return _MISSING
    return f"{value / 2**20:,.0f} MiB" if value >= 2**20 else "< 1 MiB"


def figure(value: float) -> str:
    """Write a number of any size to four digits, never with an exponent where it is large."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"  # noqa: PLR2004 - four digits
    return text.replace("-", "\N{MINUS SIGN}")


def shorten(text: str, limit: int) -> str:
    """Cut the middle out of a long name, and spell what cannot be printed."""
    shown = plain(text)
    if len(shown) <= limit:
        return shown
    tail = limit // 2
    return shown[: limit - tail - 1] + "…" + shown[-tail:]


def finish(value: Any) -> Any:  # noqa: ANN401 - jinja hands in whatever stands in a template
    """Spell what cannot be printed, in whatever text a template shows: it may come out of an archive of strangers.

    What is HTML already, of a macro or a chart, stays as it is.
    """
    return plain(value) if type(value) is str else value
