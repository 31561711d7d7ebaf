"""From the summary to one HTML file that opens offline."""

from pathlib import Path
from typing import Any

from pipeline.report import wording
from pipeline.report.rules import meaning

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
    import jinja2  # noqa: PLC0415 - importing the package must not load jinja2
    from markupsafe import Markup  # noqa: PLC0415 - comes with jinja2

    from pipeline.report import charts  # noqa: PLC0415 - matplotlib takes a second to import

    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for write in (
        wording.number,
        wording.percent,
        wording.points,
        wording.decimal,
        wording.moment,
        wording.span,
        wording.shorten,
    ):
        env.filters[write.__name__] = write
    env.filters["meaning"] = meaning
    env.globals["ends"] = wording.ends
    page = env.get_template("report.html.j2")
    accuracy = map(charts.accuracy_chart, summary["accuracy"])
    leakage = [charts.leakage_chart(curve["leakage"][0]) if curve["leakage"] else "" for curve in summary["accuracy"]]
    balance = map(charts.balance_chart, summary["classes"])
    return page.render(
        summary,
        accuracy_charts=[Markup(svg) for svg in accuracy],  # noqa: S704 - own SVG, names escaped in it
        leakage_charts=[Markup(svg) for svg in leakage],  # noqa: S704 - own SVG, names escaped in it
        balance_charts=[Markup(svg) for svg in balance],  # noqa: S704 - own SVG, names escaped in it
    )
