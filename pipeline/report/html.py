"""From the summary to one HTML file that opens offline."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.report import wording
from pipeline.report.misses import TWIN
from pipeline.report.rules import meaning

if TYPE_CHECKING:
    import jinja2

_TEMPLATES = Path(__file__).parent / "templates"


def render_html(summary: dict[str, Any]) -> str:
    """Draw the report.

    Deterministic. Everything that came out of a source (labels, paths, details) is escaped; nothing is loaded
    from outside, and the page's own policy tells the browser to refuse scripts and requests.

    Args:
        summary: what `summarize` returns.

    Returns:
        A complete HTML page.
    """
    from markupsafe import Markup  # noqa: PLC0415 - comes with jinja2

    from pipeline.report import charts  # noqa: PLC0415 - matplotlib takes a second to import

    page = _environment().get_template("report.html.j2")
    # Only what is shown is drawn.
    accuracy = [charts.accuracy_chart(curve) if len(curve["points"]) > 1 else "" for curve in summary["accuracy"]]
    leakage = [charts.leakage_chart(curve["leakage"][0]) if _leaks(curve) else "" for curve in summary["accuracy"]]
    balance = map(charts.balance_chart, summary["classes"])
    training = [charts.training_chart(run) if len(run["epochs"]) > 1 else "" for run in summary["runs"]]
    thresholds = [charts.threshold_chart(run) if run["thresholds"] else "" for run in summary["runs"]]
    return page.render(
        summary,
        accuracy_charts=[Markup(svg) for svg in accuracy],  # noqa: S704 - own SVG, names escaped in it
        leakage_charts=[Markup(svg) for svg in leakage],  # noqa: S704 - own SVG, names escaped in it
        training_charts=[Markup(svg) for svg in training],  # noqa: S704 - own SVG, names escaped in it
        threshold_charts=[Markup(svg) for svg in thresholds],  # noqa: S704 - own SVG, names escaped in it
        balance_charts=[Markup(svg) for svg in balance],  # noqa: S704 - own SVG, names escaped in it
    )


def _environment() -> "jinja2.Environment":
    """Make what templates are drawn with: strict, escaping, and with our ways to write numbers and names."""
    import jinja2  # noqa: PLC0415 - importing the package must not load jinja2

    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=wording.finish,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for write in (
        wording.number,
        wording.percent,
        wording.certainty,
        wording.points,
        wording.decimal,
        wording.moment,
        wording.span,
        wording.duration,
        wording.mebibytes,
        wording.figure,
        wording.shorten,
    ):
        env.filters[write.__name__] = write
    env.filters["meaning"] = meaning
    env.globals |= {"ends": wording.ends, "twin": TWIN}
    return env


def _leaks(curve: dict[str, Any]) -> bool:
    """Tell whether by any rule a test image overlaps, at the largest train size."""
    return any(row["images"] for measured in curve["leakage"][:1] for row in measured["rules"])
