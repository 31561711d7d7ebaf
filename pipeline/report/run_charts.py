"""The charts of one run: how training went over its epochs, and precision against recall."""

from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.report.charts import percent_tick
from pipeline.report.svg import GRID, ORIGINAL, OVERLAP, SANITIZED, STYLE, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
