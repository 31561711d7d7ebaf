"""Render HTML pages that need no network: the report, and any other page from its template."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.recipe.rules import rule_meaning
from pipeline.report import formatting
from pipeline.report.misses import TWIN

if TYPE_CHECKING:
    import jinja2

_TEMPLATES = Path(__file__).parent / "templates"
_FILTERS = {
    write.__name__: write
    for write in (
        formatting.number,
        formatting.percent,
        formatting.certainty,
        formatting.points,
        formatting.decimal,
        formatting.moment,
        formatting.span,
        formatting.duration,
        formatting.mebibytes,
        formatting.figure,
        formatting.score,
        formatting.shorten,
    )
}
# Why sanitizing drops a row, by its reason in the table splits.
_REASONS = {
    "overlap": "overlap: another role keeps a duplicate",
    "repeat": "repeat: its own role has a duplicate",
    "conflict": "conflict: a duplicate has another label",
    "issue": "issue: listed in the table issues",
}


def render_html(summary: dict[str, Any]) -> str:
    """Render the report; see `render_page`."""
    return render_page("report.html.j2", {**summary, **_draw_charts(summary)})


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """Render a page.

    The result is deterministic. Text from sources (labels, paths, details) is escaped. The page loads nothing from
    outside, and its Content-Security-Policy makes browsers refuse scripts and requests.

    Args:
        template: name of a file in `templates/`.
        values: the variables of the template.

    Returns:
        A complete HTML page.
    """
    return _environment().get_template(template).render(values)


def make_environment(templates: Path, cache: "jinja2.BytecodeCache | None" = None) -> "jinja2.Environment":
    """Make an environment of templates that is strict and escapes everything.

    Args:
        templates: the folder of the templates.
        cache: keeps compiled templates; None for none.
    """
    import jinja2  # noqa: PLC0415 - importing the package must not load jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        autoescape=True,
        finalize=formatting.escape_unprintable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=cache,
    )


@cache
def _environment() -> "jinja2.Environment":
    """Make the environment of the report, with filters that format numbers and names.

    It is made once per process, because loading the templates takes longer than rendering a small report.
    """
    from pipeline.report.compiled_templates import CompiledTemplates  # noqa: PLC0415 - imports jinja2

    env = make_environment(_TEMPLATES, CompiledTemplates([Path(__file__), Path(formatting.__file__)]))
    env.filters |= {**_FILTERS, "meaning": rule_meaning}
    env.globals |= {"ends": formatting.ends, "twin": TWIN, "reasons": _REASONS}
    return env


def _draw_charts(summary: dict[str, Any]) -> dict[str, list[str]]:
    """Draw what the models of a lake measured; an empty string where there is nothing to draw."""
    runs, curves = summary["runs"], summary["accuracy"]
    if not runs and not curves:
        return {"accuracy_charts": [], "leakage_charts": [], "training_charts": [], "threshold_charts": []}
    from markupsafe import Markup  # noqa: PLC0415 - comes with jinja2

    from pipeline.report import charts  # noqa: PLC0415 - matplotlib takes a second to import

    svgs = {
        "accuracy_charts": [charts.accuracy_chart(curve) if _grows(curve) else "" for curve in curves],
        "leakage_charts": [charts.leakage_chart(curve["leakage"][0]) if _leaks(curve) else "" for curve in curves],
        "training_charts": [charts.training_chart(run) if len(run["epochs"]) > 1 else "" for run in runs],
        "threshold_charts": [charts.threshold_chart(run) if run["thresholds"] else "" for run in runs],
    }
    return {name: [Markup(svg) for svg in group] for name, group in svgs.items()}  # noqa: S704 - own SVG, names escaped in it


def _grows(curve: dict[str, Any]) -> bool:
    """Whether accuracy on the test role was measured at several train sizes."""
    return sum(point["original"] is not None for point in curve["points"]) > 1


def _leaks(curve: dict[str, Any]) -> bool:
    """Whether a test image overlaps with train by any rule, at the largest train size."""
    return any(row["images"] for measured in curve["leakage"][:1] for row in measured["rules"])
