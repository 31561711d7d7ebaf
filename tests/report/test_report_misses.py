"""Misclassified images: which are shown, in what order, next to which training images."""

import json
import re
from typing import Any

import polars as pl
import pytest
from pages import Page
from scored import Rows, accuracy, confusion, curve, frames_of, ident, miss, row, summary_of

from pipeline.report import render_html
from pipeline.report.formatting import certainty, duration, figure, mebibytes
from pipeline.report.misses import MOST, TWIN

Frames = dict[str, pl.DataFrame]


def frames(misses: Rows, scores: Rows | None = None) -> Frames:
    return frames_of(misses, accuracy() + confusion({("a", "b"): 1}) if scores is None else scores)


def shown(run: dict[str, Any], group: str = "others") -> list[int]:
    return [int(one["picture"]["image_id"], 16) for one in run[group]["shown"]]


def page(given: Frames) -> str:
    html = render_html(summary_of(given))
    assert Page(html).open == []
    return re.sub(r"\s+", " ", html)


def test_the_clearest_mistakes_come_first_then_the_nearest_then_by_id() -> None:
    rows = [miss(7, margin=0.9), miss(6, probability=None, distance=1.0), miss(5, margin=0.9, distance=20.0)]
    rows += [miss(4, margin=0.9), miss(3, margin=0.1, distance=None, nearest_id=None, nearest_label=None)]
    (run,) = summary_of(frames(rows))["misses"]
    assert shown(run) == [5, 4, 7, 6, 3]
    assert run["others"]["shown"][-1]["nearest"] is None
    assert (run["wrong"], run["of"], run["nearest"]) == (5, 8, {"own": 4, "predicted": 0, "third": 0})


def test_twins_with_another_label_stand_apart() -> None:
    rows = [miss(1, kept=False, nearest_label="c", distance=TWIN), miss(2, nearest_label="b", distance=TWIN + 1)]
    rows += [miss(3, distance=0.0)]
    (run,) = summary_of(frames(rows))["misses"]
    assert (shown(run, "twins"), run["twins"]["total"], shown(run)) == ([1], 1, [3, 2])
    assert (run["dropped"], run["nearest"]) == (1, {"own": 1, "predicted": 1, "third": 1})
    (twin,) = run["twins"]["shown"]
    assert (twin["kept"], twin["picture"]["dropped_by"], twin["picture"]["path"]) == (False, "sign", "a/1.png")
    assert (twin["nearest"]["path"], twin["nearest_label"], twin["distance"]) == ("a/0.png", "c", TWIN)


def test_for_a_run_that_detects_one_class_the_nearest_image_has_its_class_or_the_other() -> None:
    asked = {"label": "not 5", "predicted": "5"}
    rows = [miss(1, **asked, nearest_label="1", distance=0.0), miss(2, **asked, nearest_label="5", distance=0.0)]
    rows += [miss(3, label="5", predicted="not 5", nearest_label="7")]
    (run,) = summary_of(frames(rows))["misses"]
    assert (shown(run, "twins"), run["nearest"]) == ([2], {"own": 1, "predicted": 2, "third": 0})
    assert [one["nearest_label"] for one in run["others"]["shown"]] == ["1", "7"]


def test_of_thousands_some_are_shown_and_fewer_with_more_runs() -> None:
    many = [miss(n, probability=n / 10_000) for n in range(1, 5000)]
    (run,) = summary_of(frames(many))["misses"]
    assert (run["wrong"], run["others"]["total"], len(run["others"]["shown"])) == (4999, 4999, MOST)
    names = [f"{n}" for n in range(16)]
    scores = [one for name in names for one in accuracy(run_id=name)]
    runs = summary_of(frames([miss(n, run_id=name) for name in names for n in range(1, 50)], scores))["misses"]
    assert [len(run["others"]["shown"]) for run in runs] == [5] * 16


def test_twins_leave_room_for_the_others() -> None:
    twins = [miss(n, nearest_label="b", distance=0.0) for n in range(1, 60)]
    (run,) = summary_of(frames(twins + [miss(n) for n in range(60, 99)]))["misses"]
    assert (len(run["twins"]["shown"]), len(run["others"]["shown"])) == (MOST // 2, MOST // 2)


def test_an_image_no_longer_in_the_lake_has_no_picture() -> None:
    given = frames([miss(500, nearest_id=ident(501))])
    (run,) = summary_of(given)["misses"]
    assert (run["others"]["shown"][0]["picture"], run["others"]["shown"][0]["nearest"]) == (None, None)
    assert "no longer in the lake" in page(given)


def test_a_run_without_misses_is_shown_and_an_unmeasured_run_is_not() -> None:
    (run,) = summary_of(frames([]))["misses"]
    assert (run["wrong"], run["of"], run["nearest"]) == (0, 8, None)
    assert "none of 8 wrong" in page(frames([]))
    old = frames([], [{**one, "role": None} for one in accuracy()])
    assert summary_of(old)["misses"] == []
    assert 'id="misses"' not in page(old)


def test_order_of_rows_does_not_matter_and_the_summary_is_json() -> None:
    given = frames([miss(n, probability=0.5 + n % 3 / 10) for n in range(1, 90)])
    summary = summary_of(given)
    assert json.loads(json.dumps(summary)) == summary
    shuffled = {name: frame.sample(fraction=1, shuffle=True, seed=1) for name, frame in given.items()}
    assert summary_of(shuffled) == summary


def test_the_page_shows_predictions() -> None:
    html = page(frames([miss(1, kept=False, probability=0.999), miss(2, nearest_label="b")]))
    assert "2 of 8 wrong (25.0 %)" in html
    assert "label for 1 of them, the predicted label for 1." in html
    assert "&gt; 99 % sure" in html
    assert 'title="by sanitizing, rule sign">dropped</span>' in html


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "a" * 5000, "$\\frac{"]
)
def test_labels_stay_text_everywhere(text: str) -> None:
    folds: dict[str, Any] = {"role": "train", "eval_on": "cross-validated"}
    counts = {(text, text): 1, (text, "b"): 2}
    scores = accuracy(model=text) + confusion(counts, model=text) + confusion(counts, model=text, **folds)
    scores += [
        row("fold_accuracy", 0.5, model=text, point=1, **folds),
        row("chosen_" + text, 1, role="train", model=text),
    ]
    scores += [{**one, "label": text} for one in curve(0.8, model=text)]
    scores += [row("epoch_loss", 1 / n, role="train", point=n, model=text) for n in (1, 2)]
    html = page(frames([miss(1, model=text, label=text, predicted=text + "b", nearest_label=text)], scores))
    tags = Page(html).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe"}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert text[:1000] not in html or "<" not in text
    for anchor in ("misses", "confusion", "thresholds"):
        assert f'href="#{anchor}"' in html


def test_many_classes_are_shown_as_lists() -> None:
    counts = {(f"{n:03}", f"{n + 1:03}"): n + 1 for n in range(40)}
    html = page(frames([], accuracy() + confusion(counts)))
    assert "Most frequent mistakes <small>test; 20 of 40 pairs</small>" in html
    assert "Classes with the lowest F1 <small>test; 20 of 41</small>" in html
    assert 'class="confusion"' not in html


def test_amounts_are_written_for_people() -> None:
    assert [duration(value) for value in (0.123, 12.6, 59.9, 200.0, 7300.0, None)] == [
        "0.12 s",
        "13 s",
        "60 s",
        "3 min 20 s",
        "2 h 1 min",
        "\N{EN DASH}",
    ]
    assert [mebibytes(value) for value in (0, 2**20, 5 * 2**30, None)] == [
        "< 1 MiB",
        "1 MiB",
        "5,120 MiB",
        "\N{EN DASH}",
    ]
    assert [figure(value) for value in (233968.79, -0.012345, 0.5)] == ["233,969", "\N{MINUS SIGN}0.01235", "0.5"]
    assert [certainty(value) for value in (1.0, 0.9999, 0.974)] == ["100 %", "> 99 %", "97 %"]


def test_a_run_shows_the_class_it_detects_and_what_it_was_trained_on() -> None:
    settings = json.dumps({"positive": "5", "train_on": "original"})
    given = frames_of([], [{**one, "settings": settings} for one in [*accuracy(), row("train_dropped", 0)]])
    summary = summary_of(given)
    assert (summary["accuracy"][0]["positive"], summary["accuracy"][0]["trained_on"]) == ("5", "original")
    assert summary["runs"][0]["positive"] == "5"
    html = re.sub(r"\s+", " ", render_html(summary))
    assert "5 or not" in html
    assert "trained on the original train role" in html
    assert "trained on the sanitized train role" not in html
