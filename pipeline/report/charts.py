"""The charts of the report: accuracy over train size, what leakage does to it, and images per class."""

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
    """Draw accuracy over train size, one line for each part of the test role, with its 95 % intervals.

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
            ranges = [(p["train_size"], *p["ends"][name]) for p in curve["points"] if p["ends"][name] is not None]
            if ranges:
                axes.vlines(*zip(*ranges, strict=True), color=color, linewidth=1.1)
        sizes = [p["train_size"] for p in curve["points"]]
        axes.set_xscale("log")
        axes.set_xlim(min(sizes) / 1.2, max(sizes) * 1.2)
        axes.xaxis.set_major_locator(FixedLocator(_apart(sizes)))
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(percent_tick))
        axes.set_xlabel("images trained on (log scale)")
        axes.set_ylabel("accuracy")
        axes.grid(color=GRID, linewidth=0.8)
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        return inline_svg(figure, f"Accuracy over train size of {curve['model']}")


def leakage_chart(measured: dict[str, Any]) -> str:
    """Draw, rule by rule, accuracy on the sanitized and the overlap part against that on the original test role.

    Args:
        measured: one entry of `leakage_by_size`.

    Returns:
        An SVG element: points with their 95 % intervals, the strictest rule on top.
    """
    rules, original = measured["rules"], measured["original"]
    with rc_context(STYLE):
        figure = Figure(figsize=(3.9, 1.0 + 0.5 * len(rules)), layout="constrained")
        axes: Axes = figure.subplots()
        axes.axvspan(original["low"], original["high"], color=ORIGINAL, alpha=0.16, linewidth=0)
        axes.axvline(original["mean"], color=ORIGINAL, linewidth=1.4, label="original")
        for name, shift in (("sanitized", -0.15), ("overlap", 0.15)):
            color, marker = _CURVES[name][:2]
            found = [(row + shift, rule[name]) for row, rule in enumerate(rules) if rule[name] is not None]
            rows, means = [row for row, _ in found], [score["mean"] for _, score in found]
            axes.hlines(rows, [s["low"] for _, s in found], [s["high"] for _, s in found], color=color, linewidth=1.6)
            axes.plot(means, rows, color=color, marker=marker, markersize=6, linestyle="", label=name)
        axes.set_yticks(range(len(rules)), [shorten(rule["rule"] or "the split's own", 24) for rule in rules])
        axes.set_ylim(len(rules) - 0.5, -0.5)
        axes.margins(x=0.06)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(percent_tick))
        axes.set_xlabel("accuracy")
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        return inline_svg(figure, f"What leakage does to accuracy with {measured['train_size']} training images")


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


def percent_tick(value: float, _: object = None) -> str:
    """Write a share of one at a tick."""
    return f"{value * 100:.4g} %"


def _thousands(value: float, _: object = None) -> str:
    return f"{value:,.0f}"
