"""Write the pages from their templates. Text of a lake is escaped; unprintable characters are shown as codes."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from pipeline.progress import plural
from pipeline.recipe.rules import rule_meaning
from pipeline.report import formatting

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
    import jinja2  # noqa: PLC0415 - slow to import

    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=formatting.escape_unprintable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
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
