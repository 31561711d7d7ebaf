"""The charts of the report: accuracy over train size, and images per class."""

from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from pipeline.report.svg import BAR, GRID, ORIGINAL, OVERLAP, SANITIZED, STYLE, inline_svg
from pipeline.report.wording import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CURVES = {
    "original": (ORIGINAL, "o", "-", "original test role"),
    "sanitized": (SANITIZED, "s", "-", "sanitized test role"),
    "overlap": (OVERLAP, "^", "--", "overlap only: what sanitizing dropped"),
}
_NAMED_CLASSES = 40
_NUMBERED_CLASSES = 12
_FEWEST_BARS = 6  # two classes would otherwise be two walls
_TICK_DISTANCE = 1.5  # neighbours on the log axis closer than this factor would print over each other


def accuracy_chart(curve: dict[str, Any]) -> str:
    """Draw accuracy over train size, one line for each part of the test role.

    Args:
        curve: one entry of `accuracy_curves`.

    Returns:
        An SVG element.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(6.7, 3.2), layout="constrained")
        axes: Axes = figure.subplots()
        for name, (color, marker, dash, label) in _CURVES.items():
            points = [(p["train_size"], p[name]) for p in curve["points"] if p[name] is not None]
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, color=color, marker=marker, markersize=5, linestyle=dash, label=label)
        sizes = [p["train_size"] for p in curve["points"]]
        axes.set_xscale("log")
        axes.set_xlim(min(sizes) / 1.2, max(sizes) * 1.2)
        axes.xaxis.set_major_locator(FixedLocator(_apart(sizes)))
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        axes.set_xlabel("images trained on (log scale)")
        axes.set_ylabel("accuracy")
        axes.grid(color=GRID, linewidth=0.8)
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        return inline_svg(figure, f"Accuracy over train size of {curve['model']}")


def balance_chart(source: dict[str, Any]) -> str:
    """Draw how many images each class of a source has.

    Args:
        source: one entry of `describe_classes`.

    Returns:
        An SVG element; with more classes than names would fit, the classes stand by size and without names.
    """
    counts = [row["images"] for row in source["rows"]]
    named = len(counts) <= _NAMED_CLASSES
    with rc_context(STYLE):
        figure = Figure(figsize=(5.4, 2.1), layout="constrained")
        axes: Axes = figure.subplots()
        heights = counts if named else sorted(counts, reverse=True)
        bars = axes.bar(range(len(counts)), heights, color=BAR, width=0.72)
        axes.set_xlim(-0.6, max(len(counts), _FEWEST_BARS) - 0.4)
        if len(counts) <= _NUMBERED_CLASSES:
            axes.bar_label(bars, labels=[f"{count:,}" for count in counts], fontsize=8, padding=2)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        if named:
            labels = ["no label" if r["label"] is None else shorten(r["label"], 12) for r in source["rows"]]
            crowded = sum(map(len, labels)) > _NAMED_CLASSES
            axes.set_xticks(range(len(counts)), labels, rotation=90 if crowded else 0)
        else:
            axes.set_xticks([])
            axes.set_xlabel(f"{len(counts):,} classes, largest first")
        return inline_svg(figure, f"Images per class of {source['source']}")


def _apart(sizes: list[int]) -> list[int]:
    kept: list[int] = []
    for size in sorted(sizes, reverse=True):
        if not kept or kept[-1] >= size * _TICK_DISTANCE:
            kept.append(size)
    return kept


def _percent(value: float, _: object = None) -> str:
    return f"{value * 100:.4g} %"


def _thousands(value: float, _: object = None) -> str:
    return f"{value:,.0f}"
