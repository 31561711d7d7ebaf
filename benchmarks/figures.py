"""Figures of `ingest.py`, each the median of its runs, with its target, if there is one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One line of a table.

    Attributes:
        part: main, scale, noop or add.
        name: what was measured.
        values: one for each run.
        unit: s, images/s, MiB or x, a ratio.
        most: the target, if it is at most that much.
        least: the target, if it is at least that much.
    """

    part: str
    name: str
    values: tuple[float, ...]
    unit: str
    most: float | None = None
    least: float | None = None

    @property
    def value(self) -> float:
        """The median of the runs."""
        return median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        if self.most is not None:
            return self.value <= self.most
        return None if self.least is None else self.value >= self.least


def seconds(part: str, name: str, values: Iterable[float], most: float | None = None) -> Figure:
    """Make a figure of wall times, one for each run."""
    return Figure(part, name, tuple(values), "s", most=most)


def ratio(upper: Figure, lower: Figure, name: str, *, most: float | None = None, least: float | None = None) -> Figure:
    """Divide one median by another."""
    return Figure(upper.part, name, (upper.value / lower.value,), "x", most, least)


def as_values(figure: Figure) -> dict[str, Any]:
    """Return a figure as JSON values."""
    return {**vars(figure), "value": figure.value, "met": figure.met}


def table(figures: Sequence[Figure]) -> list[str]:
    """Write figures as lines, with a heading for each part."""
    lines: list[str] = []
    for at, figure in enumerate(figures):
        if not at or figures[at - 1].part != figure.part:
            lines += ["", f"{figure.part:<58}{'median':>10} {'':<9}{'least - most':>19}   target"]
        spread = f"{_spelled(min(figure.values))} - {_spelled(max(figure.values))}" if len(figure.values) > 1 else ""
        line = f"  {figure.name:<56}{_spelled(figure.value):>10} {figure.unit:<9}{spread:>19}   {_target(figure)}"
        lines.append(line.rstrip())
    return lines


def _target(figure: Figure) -> str:
    if figure.met is None:
        return ""
    bound = f"<= {figure.most:g}" if figure.most is not None else f">= {figure.least:g}"
    return f"{bound:<8}{'met' if figure.met else 'missed'}"


def _spelled(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
