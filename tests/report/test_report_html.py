"""The page: text is escaped, the HTML is well-formed, nothing is loaded, and equal summaries give equal pages."""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pages import Page

from pipeline.report import render_html, summarize
from schemas import TABLES

SCRIPT = "<script>alert(1)</script>"
QUOTE = "\"'><img src=x onerror=alert(1)>--></svg>$\\frac{"


def table(name: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(pa.Table.from_pylist(rows, schema=TABLES[name].schema))


def overlap(clusters: pl.LazyFrame, roles: pl.LazyFrame) -> pl.DataFrame:
    left = clusters.select("rule", "cluster_id", "image_id").join(roles, on="image_id")
    both = left.join(left, on=["rule", "cluster_id"], suffix="_other")
    pairs = both.filter(pl.col("image_id") != pl.col("image_id_other"))
    per_cell = pairs.group_by("rule", "role", other="role_other")
    return per_cell.agg(images=pl.col("image_id").n_unique()).collect()


def frames(text: str, *, channels: int = 1, side: int = 28) -> dict[str, pl.DataFrame]:
    """Make a lake in which every free text is untrusted."""
    pixels = np.random.default_rng(0).integers(0, 256, side * side * channels, dtype=np.uint8).tobytes()
    place = {"dataset": "toy", "split": "train"}
    images = [
        {
            "image_id": bytes([number]) * 16,
            "path": f"{text}/{number}.png",
            "label": f"{text}{number}" if number else None,
            "height": side,
            "width": side,
            "channels": channels,
            "pixels": pixels,
            "pixel_sum": sum(pixels),
            "pixel_squares": sum(value * value for value in pixels),
            "content_hash": b"0" * 16,
            "file_size": 1,
            "shard": "0",
            **place,
        }
        for number in range(4)
    ]
    cluster = {"cluster_id": bytes(16), "rule": "exact", **place}
    clusters = [{**cluster, "image_id": row["image_id"], "label": row["label"]} for row in images]
    reject = {"path": text, "label": text, "reason": text, "detail": text, "file_size": 1, "shard": "0", **place}
    shard = {"shard": "0", "uri": text, "fingerprint": "", "rows": 4, "rejects": 1, "decoder": "", **place}
    fate = {"label_index": 0, "split_name": "main"}
    splits = [
        {
            **fate,
            "role": "test" if number else "train",
            "rank": number,
            "image_id": row["image_id"],
            "kept": not number,
            "dropped_by": "exact" if number else None,
            "dropped_for": bytes(16) if number else None,
        }
        for number, row in enumerate(images)
    ]
    run = {"run_id": "1", "model": text, "split_name": "main", "metric": "accuracy", "seed": 0, "seconds": 1.0}
    scores = [
        {**run, "train_size": size, "eval_on": eval_on, "value": 0.5, "release": 1}
        for size in (50, 60, 1000)
        for eval_on in ("original", "sanitized")
    ]
    return {
        "images": table("images", images),
        "clusters": table("clusters", clusters),
        "rejects": table("rejects", [reject]),
        "shards": table("shards", [shard]),
        "splits": table("splits", splits),
        "scores": table("scores", scores),
    }


def summary_of(given: dict[str, pl.DataFrame], lake: str = "lakes/toy") -> dict[str, Any]:
    def scan(name: str) -> pl.LazyFrame:
        return given.get(name, table(name, [])).lazy()

    return summarize(scan, lake=lake, release=7, created_at=None, overlap=overlap)


@cache
def page_of(text: str) -> str:
    """Render the page of a lake whose free texts and name are all `text`: drawing its charts takes most of a test."""
    return render_html(summary_of(frames(text), lake=text))


@cache
def empty_page() -> str:
    return render_html(summary_of({}))


@pytest.mark.parametrize("text", [SCRIPT, QUOTE, "\u202e\x1b[31m", "漢字 ἄλφα", "a" * 5000, ""])
def test_untrusted_text_is_escaped(text: str) -> None:
    html = page_of(text)
    page = Page(html)
    tags = {tag for tag, _ in page.tags}
    assert page.open == []
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "<script" not in html
    assert SCRIPT not in html
    assert "\x1b[31m</" not in html


def test_hostile_labels_are_shown_escaped() -> None:
    html = page_of(SCRIPT)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


@pytest.mark.parametrize(
    "make",
    [lambda: page_of("plain"), lambda: render_html(summary_of(frames("rgb", channels=3, side=120))), empty_page],
    ids=["gray", "rgb", "empty"],
)
def test_the_page_loads_nothing(make: Callable[[], str]) -> None:
    html = make()
    page = Page(html)
    assert page.open == []
    assert "http://" not in html
    assert "https://" not in html
    assert not re.search(r"url\((?!#)|@import", html)
    sources = [attributes["src"] or "" for _, attributes in page.tags if "src" in attributes]
    links = [value or "" for _, a in page.tags for name, value in a.items() if name in {"href", "xlink:href"}]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(link.startswith("#") for link in links)
    assert {link[1:] for link in links} <= {a["id"] for _, a in page.tags if "id" in a}
    assert bool(sources) == (make is not empty_page)


def test_the_first_lines_name_the_release() -> None:
    head = empty_page().splitlines()[:6]
    assert '<meta name="imagelake-release" content="7">' in head


def test_the_page_tells_the_browser_to_refuse_requests() -> None:
    policy = [a["content"] for _, a in Page(empty_page()).tags if "http-equiv" in a]
    (words,) = policy
    assert words == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def test_an_empty_lake_says_what_is_missing() -> None:
    html = empty_page()
    for words in (
        "There are no images in this release",
        "No rule was applied",
        "No baseline was scored",
        "This release has no decoded source",
        "No file was rejected",
    ):
        assert words in html


def test_findings_come_first() -> None:
    html = re.sub(r"\s+", " ", page_of("plain"))
    finding = "3 of 3 test images (100.0 %) are duplicates of an image in train"
    assert finding in html
    assert html.index(finding) < html.index('class="tiles"') < html.index('id="overlap"')
    assert "dropped by exact" in html


def test_equal_summaries_make_equal_pages() -> None:
    assert render_html(summary_of(frames("plain"), lake="plain")) == page_of("plain")


def test_many_classes_still_fit() -> None:
    given = frames("plain")["images"]
    many = pl.concat(
        [
            given.head(1).with_columns(
                label=pl.lit(f"{n:04}"), image_id=pl.lit(n.to_bytes(16, "big")), path=pl.lit(str(n))
            )
            for n in range(90)
        ]
    )
    html = render_html(summary_of({"images": many}))
    assert "90 classes, largest first" in html
    assert "and 50 more classes" in html


def test_importing_the_report_draws_nothing_yet() -> None:
    code = "import sys, pipeline.report; print([m for m in ('matplotlib', 'jinja2', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
