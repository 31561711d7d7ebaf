"""The pages of a lake with hostile names have the same elements as those of a lake with harmless names."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile import HARM, NAMES, build_named, harmless_names
from pages import Page

from pipeline.builder.publish import write_report
from pipeline.lake_handle import Lake
from pipeline.report.charts import leakage_chart
from pipeline.report.formatting import escape_unprintable, shorten
from pipeline.review import ReviewQuery, review_clusters, review_pairs, write_clusters, write_review

# Attributes that a name may change: descriptions of images, the images, and the positions of drawn elements.
SAID = {"title", "alt", "src", "aria-label"}
DRAWN = {"d", "transform", "clip-path", "id", "x", "y", "width", "height", "viewbox"}
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
Pages = dict[str, tuple[str, str]]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """The report and the pages of pairs and clusters, of a hostile lake and of a harmless one."""
    made: dict[str, list[str]] = {"report": [], "pairs": [], "clusters": []}
    for names in (NAMES, harmless_names(NAMES)):
        base = tmp_path_factory.mktemp("pages")
        _, lake = build_named(base, names)
        question = ReviewQuery("cosine:0.95", "main", conflicts=True)
        write_review(Lake(lake), review_pairs(Lake(lake), question), base / "pairs.html")
        write_clusters(Lake(lake), question, review_clusters(Lake(lake), question), base / "clusters.html")
        made["report"].append(Path(write_report(Lake(lake))).read_text(encoding="utf-8"))
        for name in ("pairs", "clusters"):
            made[name].append((base / f"{name}.html").read_text(encoding="utf-8"))
    return {name: (hostile, harmless) for name, (hostile, harmless) in made.items()}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", ["report", "pairs", "clusters"])
def test_names_make_no_element_attribute_or_value_of_their_own(pages: Pages, name: str) -> None:
    hostile, harmless = (Page(text) for text in pages[name])
    assert hostile.open == []
    assert [(tag, list(said)) for tag, said in hostile.tags] == [(tag, list(said)) for tag, said in harmless.tags]
    drawn = DRAWN if name == "report" else set()
    for (tag, said), (_, other) in zip(hostile.tags, harmless.tags, strict=True):
        free = SAID | (drawn if tag in {"path", "text", "clippath", "rect", "g", "use", "svg"} else set())
        assert {key: value for key, value in said.items() if key not in free} == {
            key: value for key, value in other.items() if key not in free
        }


@pytest.mark.parametrize("name", ["report", "pairs", "clusters"])
def test_nothing_is_fetched_followed_or_run(pages: Pages, name: str) -> None:
    page = Page(pages[name][0])
    assert not {tag for tag, _ in page.tags} & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "animate",
    }
    for _, said in page.tags:
        assert not [key for key in said if key.startswith("on") or key in {"srcdoc", "action", "formaction", "srcset"}]
        assert (said.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
        assert all((said.get(key) or "#").startswith("#") for key in ("href", "xlink:href"))
        assert re.fullmatch(r"url\(#\w+\)|", said.get("clip-path") or "")
    policy = [said["content"] for _, said in page.tags if said.get("http-equiv") == "Content-Security-Policy"]
    assert policy == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    ]


@pytest.mark.parametrize("name", ["report", "pairs", "clusters"])
def test_no_control_character_and_no_change_of_direction_is_in_a_page(pages: Pages, name: str) -> None:
    assert HARM.findall(pages[name][0].replace("\n", "")) == []
    assert "\\x1b[2J" in pages[name][0]


def test_names_are_shown_as_they_are_spelled(pages: Pages) -> None:
    hostile = pages["report"][0]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in hostile
    assert "{{7*7}}" in hostile
    assert "&amp;lt;script&amp;gt;&amp;#60;b&amp;#62;" in hostile
    assert "äöü ñ ß 漢字 かな ελ" in hostile
    assert "$\\frac{$ $x^2$ \\$" in hostile


def chart(*rules: str) -> str:
    score = {"mean": 0.5, "low": 0.4, "high": 0.6}
    rows = [{"rule": rule, "sanitized": score, "overlap": None} for rule in rules]
    return leakage_chart({"rules": rows, "original": score, "train_size": 50})


def test_a_chart_shows_names_and_typesets_nothing() -> None:
    names = [r"$\frac{", "$x^2$", "$$", r"\textbf{x}", "_x", "<b>&\"'", "{0} %s", "\x00\x1b"]
    drawn, plain = chart(*names), chart(*"abcdefgh")
    texts = re.findall(r">([^<>]+)</text>", drawn)
    for name in names:
        assert shorten(name, 24).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in texts
    assert [tag for tag, _ in Page(drawn).tags] == [tag for tag, _ in Page(plain).tags]


@pytest.mark.parametrize("make", [escape_unprintable, lambda text: shorten(text, 9)])
def test_what_templates_show_is_plain(make: Callable[[str], str]) -> None:
    assert [name for name in NAMES if HARM.search(make(name))] == []
    assert make("漢字") == "漢字"
