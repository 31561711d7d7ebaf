"""The effect of leakage, in the summary and on the page."""

import re
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from pipeline.report.accuracy import accuracy_curves
from pipeline.report.charts import accuracy_chart, leakage_chart
from pipeline.report.formatting import ends, points
from pipeline.report.html import render_html
from pipeline.report.summary import summarize
from schemas import TABLES

RUN = {"run_id": "0123456789", "model": "logistic", "split_name": "main", "seconds": 1.0, "release": 4}


def row(metric: str, value: float, eval_on: str = "original", rule: str | None = None, **more: Any) -> dict[str, Any]:
    measured = {"metric": metric, "value": value, "eval_on": eval_on, "rule": rule}
    return {**RUN, "train_size": 100, "seed": 0, **measured, **more}


def part(eval_on: str, rule: str | None, images: int, mean: float, **more: Any) -> list[dict[str, Any]]:
    if not images:
        return [row("images", 0, eval_on, rule, **more)]
    made = {"images": images, "accuracy_mean": mean, "accuracy_low": mean - 0.02, "accuracy_high": mean + 0.02}
    made |= {"wilson_low": mean - 0.05, "wilson_high": mean + 0.05}
    rows = [row(metric, value, eval_on, rule, **more) for metric, value in made.items()]
    return rows + [
        row("accuracy", mean + step, eval_on, rule, **{**more, "seed": n}) for n, step in ((0, -0.1), (1, 0))
    ]


def rows_of(*, seen: int = 10, seeds: int = 2, **more: Any) -> list[dict[str, Any]]:
    rows = [row("seeds", seeds, **more), row("train_dropped", 7, **more), *part("original", None, 50, 0.8, **more)]
    for rule, images in ((None, 0), ("maxpool:4", seen), ("exact", 0)):
        rows += part("sanitized", rule, 50 - images, 0.7, **more) + part("overlap", rule, images, 0.9, **more)
        rows += [row(f"leak_{end}", value, "original", rule, **more) for end, value in LEAK.items()]
    return rows


LEAK = {"mean": 0.1, "low": -0.04, "high": 0.24}


def curves(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return accuracy_curves(pl.DataFrame(pa.Table.from_pylist(rows, schema=TABLES["scores"].schema)).lazy())


def page(rows: list[dict[str, Any]]) -> str:
    scores = pl.DataFrame(pa.Table.from_pylist(rows, schema=TABLES["scores"].schema))
    empty = {name: pl.DataFrame(table.schema.empty_table()) for name, table in TABLES.items()}
    counts = pl.DataFrame(schema={"rule": pl.String, "role": pl.String, "other": pl.String, "images": pl.Int64})
    given = {**empty, "scores": scores}
    summary = summarize(
        lambda name: given[name].lazy(), lake="toy", release=4, created_at=None, overlap=lambda *_: counts
    )
    return re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>", "", render_html(summary), flags=re.DOTALL))


def test_rules_stand_by_strictness_and_the_split_itself_last() -> None:
    (curve,) = curves(rows_of())
    (measured,) = curve["leakage"]
    assert [(one["rule"], one["images"]) for one in measured["rules"]] == [("exact", 0), ("maxpool:4", 10), (None, 0)]
    assert (measured["seeds"], measured["images"], curve["train_dropped"]) == (2, 50, 7)
    exact, pooled, _ = measured["rules"]
    assert exact["overlap"] is None
    assert pooled["overlap"] == pytest.approx(
        {"mean": 0.9, "low": 0.88, "high": 0.92, "test_low": 0.85, "test_high": 0.95}
    )
    assert pooled["leak"] == LEAK


def test_the_curve_has_the_estimate_over_all_seeds_and_no_rule() -> None:
    (curve,) = curves(rows_of())
    (point,) = curve["points"]
    assert (point["original"], point["sanitized"], point["overlap"]) == (0.8, 0.7, None)
    assert point["ends"]["original"] == pytest.approx([0.78, 0.82])
    assert point["ends"]["overlap"] is None


def test_scores_of_older_lakes_show_the_mean_of_their_seeds() -> None:
    (curve,) = curves([row("accuracy", value, seed=seed) for seed, value in enumerate((0.4, 0.6))])
    assert [point["original"] for point in curve["points"]] == [0.5]
    assert (curve["leakage"], curve["train_dropped"]) == ([], None)


def test_sizes_come_largest_first() -> None:
    (curve,) = curves(rows_of(train_size=50) + rows_of(train_size=900))
    assert [measured["train_size"] for measured in curve["leakage"]] == [900, 50]


def test_the_page_shows_the_leak_with_its_interval() -> None:
    html = page(rows_of())
    assert "<h3>Effect of leakage <small>logistic, split main, 100 training images, 2 seeds</small></h3>" in html
    assert '<b>+10.00</b><small class="ends">\N{MINUS SIGN}4.00 to 24.00</small>' in html
    assert '90.0 %<small class="ends">88.0 to 92.0</small><small class="ends test">85.0 to 95.0</small>' in html
    assert "first over seeds (Student" in html
    assert "run 012345; trained on the original train role, including 7 images that sanitizing drops" in html
    assert "Other train sizes" not in html
    assert "Other train sizes <small>1</small>" in page(rows_of() + rows_of(train_size=50))


def test_one_seed_says_that_its_intervals_are_of_the_test_images() -> None:
    html = page(rows_of(seeds=1))
    assert "100 training images, one seed" in html
    assert "Each interval is 95 % over test images (Wilson; for the leak Newcombe)" in html
    assert "ends test" not in html.split("</style>")[1]


def test_without_any_overlap_one_line_says_so() -> None:
    html = page(rows_of(seen=0))
    assert "None: under no rule is a test image in the same cluster as" in html
    assert 'class="leaks"' not in html


def test_charts_draw_what_there_is() -> None:
    (curve,) = curves(rows_of())
    svg = leakage_chart(curve["leakage"][0])
    for text in ("exact", "maxpool:4", "the split&apos;s own", "sanitized", "overlap", "original"):
        assert text in svg or text.replace("&apos;", "'") in svg
    assert svg == leakage_chart(curve["leakage"][0])
    assert "overlap only" not in accuracy_chart(curve)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "+1.23"), (-0.5, "\N{MINUS SIGN}50.00"), (0.0, "0.00"), (-1e-9, "0.00"), (None, "\N{EN DASH}")],
)
def test_points_have_a_sign_unless_they_are_nothing(value: float | None, text: str) -> None:
    assert points(value) == text


def test_ends_are_written_without_their_unit() -> None:
    assert ends(-0.001, 1.0) == "\N{MINUS SIGN}0.1 to 100.0"
    assert ends(-1e-9, 0.12345, 2) == "0.00 to 12.35"
