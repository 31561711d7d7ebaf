"""The charts of the report: accuracy over train size, what leakage does to it, and images per class.

The charts of one run: how training went over its epochs, and precision against recall.

From a matplotlib figure to an SVG element that stands inside the page.

matplotlib writes colours into the file, so a chart is drawn in colours that stand for a part (`INK` and so
on) and each is then replaced by the CSS variable of that part: one chart serves the light and the dark page.
Text stays text, in the font of the page. There is no date and no random id: equal summaries make equal files.
"""

import io
import re
import warnings
from html import escape
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from pipeline.report.wording import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes


INK, GRID, BAR = "#010101", "#010102", "#010103"
ORIGINAL, SANITIZED, OVERLAP = "#010104", "#010105", "#010106"
_VARIABLES = {
    INK: "var(--muted)",
    GRID: "var(--line)",
    BAR: "var(--bar)",
    ORIGINAL: "var(--original)",
    SANITIZED: "var(--sanitized)",
    OVERLAP: "var(--overlap)",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "imagelake",
    # A label may hold a dollar sign, or a backslash: neither is an order.
    "text.parse_math": False,
    "text.usetex": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 9,
    "lines.linewidth": 1.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.axisbelow": True,
}
_DATED = ("Date", "Creator", "Format", "Type")
_OPENING = re.compile(r"<svg[^>]*?(width=\S+) (height=\S+) (viewBox=\"[^\"]*\")[^>]*>")
_UNUSED_ID = re.compile(r' id="(?!m[0-9a-f]+"|p[0-9a-f]+")[\w.]*"')  # only markers and clip paths are referred to


def inline_svg(figure: "Figure", title: str) -> str:
    """Write a figure as an SVG element.

    Args:
        figure: drawn under `STYLE`, in the colours of this module.
        title: what the chart shows, for those who cannot see it.

    Returns:
        An `<svg>` element; whatever text is in the figure is escaped.
    """
    file = io.StringIO()
    with warnings.catch_warnings():
        # Only the width of the text is guessed here: the reader's browser has the font, or finds one.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(_DATED))
    text = file.getvalue()
    text = re.sub(r"<style.*?</style>", "", text[text.index("<svg") :], count=1, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", _UNUSED_ID.sub("", text))
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    name = escape(shorten(title, 120))
    return _OPENING.sub(lambda found: _opening(name, *found.groups()), text, count=1)


def _opening(name: str, *size: str) -> str:
    return f'<svg class="chart" role="img" aria-label="{name}" {" ".join(size)}>'


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


_PLACES = {
    "test": (ORIGINAL, "-", "test"),
    "cross-validated": (SANITIZED, "-", "train, cross-validated"),
    "valid": (OVERLAP, "--", "valid"),
}
_PANELS = {
    "valid_accuracy": ("accuracy on valid", ORIGINAL, "o"),
    "loss": ("loss on train", SANITIZED, "s"),
}
_MARKED_EPOCHS = 40


def training_chart(run: dict[str, Any]) -> str:
    """Draw accuracy on valid, where it was measured, and loss on train over epochs, in panels side by side.

    Args:
        run: one entry of `describe_runs`, with epochs.

    Returns:
        An SVG element.
    """
    epochs = run["epochs"]
    drawn = [name for name in _PANELS if any(epoch[name] is not None for epoch in epochs)]
    with rc_context(STYLE):
        figure = Figure(figsize=(0.3 + 3.2 * len(drawn), 2.3), layout="constrained")
        panels: list[Axes] = figure.subplots(1, len(drawn), squeeze=False)[0].tolist()
        for axes, name in zip(panels, drawn, strict=True):
            title, color, marker = _PANELS[name]
            points = [(epoch["epoch"], epoch[name]) for epoch in epochs if epoch[name] is not None]
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=color, marker=marker if len(points) <= _MARKED_EPOCHS else "", markersize=4)
            axes.set_title(title, loc="left", fontsize=9)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(5))
            if name == "valid_accuracy":
                axes.yaxis.set_major_formatter(FuncFormatter(percent_tick))
            else:
                axes.set_ylim(bottom=0)
            axes.set_xlabel("epoch")
            axes.grid(color=GRID, linewidth=0.8)
        return inline_svg(figure, f"Training of {run['model']} over {len(epochs)} epochs")


def threshold_chart(run: dict[str, Any]) -> str:
    """Draw precision against recall, one line for each place that was measured; a ring where a wanted threshold is.

    Args:
        run: one entry of `describe_runs`, with thresholds.

    Returns:
        An SVG element.
    """
    told = run["thresholds"]
    rings = [(place["place"], place["recall"], place["precision"]) for one in told["wanted"] for place in one["places"]]
    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.5), layout="constrained")
        axes: Axes = figure.subplots()
        for curve in told["curves"]:
            color, dash, label = _PLACES[curve["place"]]
            x, y = zip(*((point["recall"], point["precision"]) for point in curve["points"]), strict=True)
            axes.plot(x, y, color=color, linestyle=dash, label=label, marker="o" if len(x) == 1 else "", markersize=4)
        for place, recall, precision in rings:
            if recall is not None and precision is not None:
                color = _PLACES[place][0]
                axes.plot([recall], [precision], color=color, marker="o", markersize=8, fillstyle="none", clip_on=False)
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, 1.03)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
            axis.set_major_formatter(FuncFormatter(percent_tick))
        axes.tick_params(pad=6)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
        axes.grid(color=GRID, linewidth=0.8)
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        return inline_svg(figure, f"Precision against recall of {run['model']}, looking for {told['label']}")
