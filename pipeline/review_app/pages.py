"""Write the pages from their templates. Text of a lake is escaped; unprintable characters are shown as codes."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from pipeline.progress import plural
from pipeline.recipe.rules import rule_meaning
from pipeline.report import formatting
from pipeline.report.html import make_environment

if TYPE_CHECKING:
    import jinja2

TEMPLATES, STATIC = (Path(__file__).parent / name for name in ("templates", "static"))


def render(template: str, values: Mapping[str, Any]) -> str:
    """Render a page.

    Args:
        template: name of a file in `templates/`.
        values: the variables of the template.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> "jinja2.Environment":
    env = make_environment(TEMPLATES)
    env.filters |= {
        "number": formatting.number,
        "percent": formatting.percent,
        "score": formatting.score,
        "shorten": formatting.shorten,
        "meaning": rule_meaning,
        "query": urlencode,
    }
    env.globals |= {"plural": plural}
    return env
