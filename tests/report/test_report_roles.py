"""Roles in the report: mean and deviation, classes before and after sanitizing, drops, samples with labels."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest
from pages import Page
from polars.io.plugins import register_io_source
from scored import ident, image, summary_of, table

from pipeline.dedup.clusters import overlap_matrix
from pipeline.lake_handle import Lake
from pipeline.report import render_html, summarize
from pipeline.report.roles import sum_roles

Frames = dict[str, pl.DataFrame]


def summary_of_lake(lake: Lake) -> dict[str, Any]:
    return summarize(lake.scan, lake="x", release=1, created_at=None, overlap=overlap_matrix)


def split_row(number: int, role: str, *, rank: int | None = None, name: str = "main", **more: Any) -> dict[str, Any]:
    drawn = {"label_index": 0, "kept": not more, "dropped_by": None, "dropped_for": None, "reason": None}
    place = {"role": role, "rank": number if rank is None else rank, "image_id": ident(number), "split_name": name}
    return {**place, **drawn, **more}


def frames(images: list[dict[str, Any]], splits: list[dict[str, Any]]) -> Frames:
    return {"images": table("images", images), "splits": table("splits", splits)}


def page(given: Frames) -> str:
    html = render_html(summary_of(given))
    assert Page(html).open == []
    return re.sub(r"\s+", " ", html)


@pytest.mark.parametrize("made", ["small_lake", "rgb_lake"])
def test_mean_and_deviation_are_those_of_numpy(made: str, request: pytest.FixtureRequest) -> None:
    lake: Lake = request.getfixturevalue(made)
    (split,) = summary_of_lake(lake)["roles"]
    assert len(split["roles"]) == 2
    for role in split["roles"]:
        for prefix, sanitized in (("kept_", True), ("", False)):
            pixels, _ = lake.arrays("main", role["role"], sanitized=sanitized, normalised=True)
            assert role["kept" if sanitized else "images"] == len(pixels)
            assert role[f"{prefix}mean"] == pytest.approx(pixels.mean(dtype=np.float64), abs=1e-7)
            assert role[f"{prefix}std"] == pytest.approx(pixels.std(dtype=np.float64), abs=1e-7)


def test_samples_are_the_first_rows_of_the_arrays_with_their_labels(small_lake: Lake) -> None:
    (split,) = summary_of_lake(small_lake)["roles"]
    names = small_lake.class_names("main")
    for role in split["roles"]:
        ids = [image_id.hex() for image_id in small_lake.members("main", role["role"])["image_id"]]
        _, labels = small_lake.arrays("main", role["role"])
        shown = len(role["samples"])
        assert shown == min(45, len(ids))
        assert [one["image_id"] for one in role["samples"]] == ids[:shown]
        assert [one["label"] for one in role["samples"]] == [names[label] for label in labels[:shown]]


def test_sums_of_roles_read_no_pixels() -> None:
    images = table("images", [image(n, "a", "train") for n in range(9)])
    asked: list[list[str]] = []

    def source(columns: list[str] | None, predicate: pl.Expr | None, *_: int | None) -> Iterator[pl.DataFrame]:
        asked.append(columns or images.columns)
        rows = images if predicate is None else images.filter(predicate)
        yield rows.select(asked[-1])

    splits = table("splits", [split_row(n, "train") for n in range(9)])
    sums = sum_roles(register_io_source(source, schema=images.schema), splits.lazy(), ["main"])
    assert sums["images"].sum() == 9
    assert asked
    assert not [columns for columns in asked if "pixels" in columns]


def test_classes_are_counted_before_and_after_in_the_order_of_their_numbers() -> None:
    labels: list[str | None] = ["10", "9", "9", None, "10", None]
    images = [{**image(n, "x", "train"), "label": label} for n, label in enumerate(labels)]
    numbers = {"9": 0, "10": 1, None: None}
    splits = [
        split_row(n, "test" if n == 4 else "train") | {"label_index": numbers[label], "kept": n not in (2, 3)}
        for n, label in enumerate(labels)
    ]
    (split,) = summary_of(frames(images, splits))["roles"]
    assert [role["role"] for role in split["roles"]] == ["train", "test"]
    assert split["classes"] == [
        {"label": "9", "cells": [{"images": 2, "kept": 1}, {"images": 0, "kept": 0}]},
        {"label": "10", "cells": [{"images": 1, "kept": 1}, {"images": 1, "kept": 1}]},
    ]
    assert [(role["unlabelled"], role["kept_unlabelled"]) for role in split["roles"]] == [(2, 1), (0, 0)]
    assert split["largest"] == [2, 1]


def test_drops_are_counted_by_rule_and_reason() -> None:
    causes = [("exact", "overlap"), ("exact", "repeat"), ("exact", "overlap"), ("sign", "conflict"), (None, None)]
    splits = [
        split_row(n, "train", kept=False, dropped_by=rule, reason=reason, dropped_for=ident(9))
        for n, (rule, reason) in enumerate(causes)
    ]
    splits.append(split_row(9, "test"))
    given = frames([image(n, "a", "train") for n in range(10)], splits)
    train, test = summary_of(given)["roles"][0]["roles"]
    assert train["drops"] == [
        {"rule": "exact", "reason": "overlap", "images": 2},
        {"rule": "", "reason": None, "images": 1},
        {"rule": "exact", "reason": "repeat", "images": 1},
        {"rule": "sign", "reason": "conflict", "images": 1},
    ]
    assert (train["kept"], train["kept_mean"], train["kept_std"], train["samples"]) == (0, None, None, [])
    assert test["drops"] == []
    html = page(given)
    assert '<td>exact</td><td>overlap: another role keeps a duplicate</td><td class="n">2</td>' in html
    assert "<td>not recorded</td>" in html


def test_the_more_splits_the_fewer_samples_and_no_more_than_forty_classes() -> None:
    images = [image(n, f"{n % 50:02}", "train") for n in range(100)]
    splits = [split_row(n, "train", name=name) for name in "abcdef" for n in range(100)]
    found = summary_of(frames(images, splits))["roles"]
    assert [len(role["samples"]) for split in found for role in split["roles"]] == [9] * 6
    assert [(len(split["classes"]), split["more_classes"]) for split in found] == [(40, 10)] * 6


def test_the_order_of_rows_changes_nothing() -> None:
    images = [image(n, "ab"[n % 2], "train") for n in range(90)]
    splits = [split_row(n, "train", rank=(n * 37) % 90) for n in range(90)]
    given = frames(images, splits)
    mixed = {name: frame.sample(fraction=1, shuffle=True, seed=1) for name, frame in given.items()}
    found = summary_of(given)["roles"]
    assert found == summary_of(mixed)["roles"]
    assert [int(one["image_id"], 16) * 37 % 90 for one in found[0]["roles"][0]["samples"]] == list(range(45))


def test_a_role_without_labels_has_no_classes_and_says_so() -> None:
    images = [{**image(n, "x", "train"), "label": None if n else "a"} for n in range(3)]
    splits = [split_row(0, "train"), *(split_row(n, "test") | {"label_index": None} for n in (1, 2))]
    given = frames(images, splits)
    (split,) = summary_of(given)["roles"]
    assert [row["label"] for row in split["classes"]] == ["a"]
    html = page(given)
    assert "2 of 2: the first ones of the sanitized role, whose order is random; they have no label" in html
    assert "1 of 1: the first ones of the sanitized role, whose order is random, each above its label" in html


def test_unlabelled_sources_are_not_drawn_as_a_class() -> None:
    images = [{**image(n, "x", "test"), "label": None} for n in range(3)]
    images += [{**image(n, "x", "train"), "label": [None, "a"][n % 2]} for n in range(3, 8)]
    given = {"images": table("images", images)}
    test, train = summary_of(given)["classes"]
    assert (test["rows"], test["unlabelled"]["images"], test["unlabelled"]["sheet"]["count"]) == ([], 3, 3)
    assert [(row["label"], row["images"]) for row in train["rows"]] == [("a", 3)]
    assert train["unlabelled"]["images"] == 2
    html = page(given)
    assert "Images per class of toy/train" in html
    assert "Images per class of toy/test" not in html
    assert "smallest 3, largest 3; 2 more have no label" in html
    assert "Images of toy/test <small>without labels</small>" in html
    assert "Classes of toy/test" not in html
    assert "more classes" not in html
    alone = page({"images": given["images"].filter(pl.col("split") == "test")})
    assert "Class balance" not in alone
