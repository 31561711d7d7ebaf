"""From a matplotlib figure to an SVG element that stands inside the page.

matplotlib writes colours into the file, so a chart is drawn in colours that stand for a part (`INK` and so
on) and each is then replaced by the CSS variable of that part: one chart serves the light and the dark page.
Text stays text, in the font of the page. There is no date and no random id: equal summaries make equal files.
"""

import io
import re
import warnings
from html import escape
from typing import TYPE_CHECKING, Any

from pipeline.report.wording import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
