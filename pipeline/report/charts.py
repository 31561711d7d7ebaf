"""Draw the charts of the report with matplotlib, as SVG elements inside the page.

Charts are drawn in placeholder colours (`_INK` and so on), each of which is then replaced by a CSS variable, so one
chart serves the light and the dark page. Text stays text, in the font of the page. The SVG has no date and no random
id: equal summaries give equal files.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from pipeline.report.formatting import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _GRID = "#010101", "#010102"
_ORIGINAL, _SANITIZED, _OVERLAP = "#010104", "#010105", "#010106"
_VARIABLES = {
    _INK: "var(--muted)",
    _GRID: "var(--line)",
    _ORIGINAL: "var(--original)",
    _SANITIZED: "var(--sanitized)",
    _OVERLAP: "var(--overlap)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "imagelake",
    # A dollar sign or a backslash in a label is plain text.
    "text.parse_math": False,
    "text.usetex": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "font.size": 9,
    "lines.linewidth": 1.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.axisbelow": True,
}
_METADATA = ("Date", "Creator", "Format", "Type")
_SVG_TAG = re.compile(r"<svg[^>]*?(width=\S+) (height=\S+) (viewBox=\"[^\"]*\")[^>]*>")
_UNUSED_ID = re.compile(r' id="(?!m[0-9a-f]+"|p[0-9a-f]+")[\w.]*"')  # only markers and clip paths are referenced

# Parts of the test role: colour, marker, line style, legend.
_PARTS = {
    "original": (_ORIGINAL, "o", "-", "original test role"),
    "sanitized": (_SANITIZED, "s", "-", "sanitized test role"),
    "overlap": (_OVERLAP, "^", "--", "overlap only: what sanitizing dropped"),
}
# Where thresholds are measured: colour, line style, legend.
_PLACES = {
    "test": (_ORIGINAL, "-", "test"),
    "cross-validated": (_SANITIZED, "-", "train, cross-validated"),
    "valid": (_OVERLAP, "--", "valid"),
}
# Panels of training: by title, the role and the value of each line.
_TRAINING_PANELS = {
    "accuracy": {"train": "accuracy", "valid": "valid_accuracy"},
    "loss, nats": {"train": "loss", "valid": "valid_loss"},
}
_ROLES = {"train": (_SANITIZED, "s"), "valid": (_ORIGINAL, "o")}
_MAX_MARKED_EPOCHS = 40
_MIN_TICK_RATIO = 1.5  # labels of closer ticks on the log axis would overlap


def accuracy_chart(curve: dict[str, Any]) -> str:
    """Draw accuracy over train size, one line for each part of the test role, with its 95 % intervals.

    Args:
        curve: one entry of `accuracy_curves`.

    Returns:
        An SVG element.
    """
    with _figure(6.7, 3.2) as figure:
        axes: Axes = figure.subplots()
        for name, (color, marker, dash, label) in _PARTS.items():
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
        axes.xaxis.set_major_locator(FixedLocator(_spaced(sizes)))
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        axes.set_xlabel("images trained on (log scale)")
        axes.set_ylabel("accuracy")
        axes.grid(color=_GRID, linewidth=0.8)
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        return _to_svg(figure, f"Accuracy over train size of {curve['model']}")


def leakage_chart(measured: dict[str, Any]) -> str:
    """Draw accuracy on the sanitized and the overlap part, rule by rule, against that on the original test role.

    Args:
        measured: one entry of `leakage_by_size`.

    Returns:
        An SVG element: points with their 95 % intervals, the strictest rule on top.
    """
    rules, original = measured["rules"], measured["original"]
    with _figure(3.9, 1.0 + 0.5 * len(rules)) as figure:
        axes: Axes = figure.subplots()
        axes.axvspan(original["low"], original["high"], color=_ORIGINAL, alpha=0.16, linewidth=0)
        axes.axvline(original["mean"], color=_ORIGINAL, linewidth=1.4, label="original")
        for name, shift in (("sanitized", -0.15), ("overlap", 0.15)):
            color, marker = _PARTS[name][:2]
            found = [(row + shift, rule[name]) for row, rule in enumerate(rules) if rule[name] is not None]
            rows, means = [row for row, _ in found], [score["mean"] for _, score in found]
            axes.hlines(rows, [s["low"] for _, s in found], [s["high"] for _, s in found], color=color, linewidth=1.6)
            axes.plot(means, rows, color=color, marker=marker, markersize=6, linestyle="", label=name)
        axes.set_yticks(range(len(rules)), [shorten(rule["rule"] or "the split's own", 24) for rule in rules])
        axes.set_ylim(len(rules) - 0.5, -0.5)
        axes.margins(x=0.06)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(_percent))
        axes.set_xlabel("accuracy")
        axes.grid(axis="x", color=_GRID, linewidth=0.8)
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        return _to_svg(figure, f"Effect of leakage on accuracy with {measured['train_size']} training images")


def training_chart(run: dict[str, Any]) -> str:
    """Draw accuracy and loss over epochs in panels side by side, on train and on valid, as far as they are measured.

    Args:
        run: one entry of `describe_runs`, with epochs.

    Returns:
        An SVG element.
    """
    epochs = run["epochs"]
    measured = {name for epoch in epochs for name, value in epoch.items() if value is not None}
    drawn = {title: lines for title, lines in _TRAINING_PANELS.items() if measured & {*lines.values()}}
    with _figure(0.3 + 3.2 * len(drawn), 2.5) as figure:
        panels: list[Axes] = figure.subplots(1, len(drawn), squeeze=False)[0].tolist()
        legend = {}
        for axes, (title, lines) in zip(panels, drawn.items(), strict=True):
            for role, name in lines.items():
                points = [(epoch["epoch"], epoch[name]) for epoch in epochs if epoch[name] is not None]
                if points:
                    color, marker = _ROLES[role]
                    shape = marker if len(points) <= _MAX_MARKED_EPOCHS else ""
                    (legend[role],) = axes.plot(*zip(*points, strict=True), color=color, marker=shape, markersize=4)
            axes.set_title(title, loc="left", fontsize=9)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(5))
            if title == "accuracy":
                axes.yaxis.set_major_formatter(FuncFormatter(_percent))
            else:
                axes.set_ylim(bottom=0)
            axes.set_xlabel("epoch")
            axes.grid(color=_GRID, linewidth=0.8)
        figure.legend([*legend.values()], [*legend], loc="outside upper left", ncols=2, frameon=False)
        return _to_svg(figure, f"Training of {run['model']} over {len(epochs)} epochs")


def threshold_chart(run: dict[str, Any]) -> str:
    """Draw precision against recall, one line for each place that was measured; rings mark the chosen thresholds.

    Args:
        run: one entry of `describe_runs`, with thresholds.

    Returns:
        An SVG element.
    """
    thresholds = run["thresholds"]
    chosen = [place for wanted in thresholds["wanted"] for place in wanted["places"]]
    with _figure(5.2, 3.5) as figure:
        axes: Axes = figure.subplots()
        for curve in thresholds["curves"]:
            color, dash, label = _PLACES[curve["place"]]
            x, y = zip(*((point["recall"], point["precision"]) for point in curve["points"]), strict=True)
            axes.plot(x, y, color=color, linestyle=dash, label=label, marker="o" if len(x) == 1 else "", markersize=4)
        for ring in chosen:
            recall, precision = ring["recall"], ring["precision"]
            if recall is not None and precision is not None:
                color = _PLACES[ring["place"]][0]
                axes.plot([recall], [precision], color=color, marker="o", markersize=8, fillstyle="none", clip_on=False)
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, 1.03)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
            axis.set_major_formatter(FuncFormatter(_percent))
        axes.tick_params(pad=6)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
        axes.grid(color=_GRID, linewidth=0.8)
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        return _to_svg(figure, f"Precision against recall of {run['model']} for class {thresholds['label']}")


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """Make a figure, sizes in inches; the style applies until the block ends."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


def _to_svg(figure: Figure, title: str) -> str:
    """Write a figure as an SVG element.

    Args:
        figure: made by `_figure`, in the colours of this module.
        title: description of the chart for readers who cannot see it.

    Returns:
        An `<svg>` element; all text in it is escaped.
    """
    file = io.StringIO()
    with warnings.catch_warnings():
        # Missing glyphs affect only the estimated width of text; the browser has the font or a substitute.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        # `savefig` would draw the figure twice if it had the layout still to do.
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    text = file.getvalue()
    text = re.sub(r"<style.*?</style>", "", text[text.index("<svg") :], count=1, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", _UNUSED_ID.sub("", text))
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    name = escape(shorten(title, 120))

    def svg_tag(found: re.Match[str]) -> str:
        return f'<svg class="chart" role="img" aria-label="{name}" {" ".join(found.groups())}>'

    return _SVG_TAG.sub(svg_tag, text, count=1)


def _spaced(sizes: list[int]) -> list[int]:
    """Choose the sizes to label, from the largest down, so that labels do not overlap."""
    kept: list[int] = []
    for size in sorted(sizes, reverse=True):
        if not kept or kept[-1] >= size * _MIN_TICK_RATIO:
            kept.append(size)
    return kept


def _percent(value: float, _: object = None) -> str:
    return f"{value * 100:.4g} %"


def _thousands(value: float, _: object = None) -> str:
    return f"{value:,.0f}"
