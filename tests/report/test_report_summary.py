"""The summary dict on a lake small enough to count by hand."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from pipeline.report import summarize
from pipeline.report.html import render_html
from schemas import TABLES

Frames = dict[str, pl.DataFrame]
WHEN = datetime(2026, 11, 21, 1, 46, tzinfo=UTC)


def table(name: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(pa.Table.from_pylist(rows, schema=TABLES[name].schema))


def ident(number: int) -> bytes:
    return number.to_bytes(16, "big")


def image(number: int, label: str | None, split: str, *, look: int | None = None) -> dict[str, Any]:
    """Make an image; images with the same look have the same pixels."""
    look = number if look is None else look
    pixels = np.random.default_rng(look).integers(0, 256, 64, dtype=np.uint8).tobytes()
    return {
        "image_id": ident(number),
        "path": f"{label}/{number}.png",
        "label": label,
        "height": 8,
        "width": 8,
        "channels": 1,
        "pixels": pixels,
        "pixel_sum": sum(pixels),
        "pixel_squares": sum(value * value for value in pixels),
        "content_hash": ident(look),
        "file_size": 99,
        "dataset": "toy",
        "split": split,
        "shard": f"{number % 2}",
    }


def members(rule: str, images: list[dict[str, Any]], *clusters: set[int]) -> list[dict[str, Any]]:
    rows = {int.from_bytes(row["image_id"], "big"): row for row in images}
    return [
        {
            "cluster_id": ident(min(cluster)),
            "rule": rule,
            **{name: rows[number][name] for name in ("image_id", "label", "dataset", "split")},
        }
        for cluster in clusters
        for number in sorted(cluster)
    ]


def split_row(number: int, role: str, dropped_for: int | None = None) -> dict[str, Any]:
    return {
        "role": role,
        "rank": number,
        "image_id": ident(number),
        "label_index": 0,
        "kept": dropped_for is None,
        "dropped_by": None if dropped_for is None else "sign",
        "dropped_for": None if dropped_for is None else ident(dropped_for),
        "split_name": "main",
    }


def toy() -> Frames:
    """Ten images: 0 to 5 in toy/train, 6 to 9 in toy/test; 6 and 7 are copies of 0 and 1, 8 nearly one of 2."""
    images = [image(n, "a" if n < 3 else "b", "train") for n in range(5)]
    images += [image(5, None, "train", look=3), image(6, "a", "test", look=0), image(7, "b", "test", look=1)]
    images += [image(8, "a", "test"), image(9, "b", "test")]
    clusters = members("exact", images, {0, 6}, {1, 7}, {3, 5})
    clusters += members("sign", images, {0, 6}, {1, 7}, {2, 4, 8}, {3, 5})
    rejects = [
        {
            "path": f"{n}.png",
            "label": "a",
            "reason": "empty" if n else "truncated",
            "detail": f"detail {n}",
            "file_size": n,
            "shard": "0",
            "dataset": "toy",
            "split": "test",
        }
        for n in range(7)
    ]
    splits = [split_row(n, "train") for n in (0, 1, 2, 3)] + [split_row(4, "valid", dropped_for=2)]
    splits += [split_row(6, "test", 0), split_row(7, "test", 1), split_row(8, "test", 2), split_row(9, "test")]
    return {
        "images": table("images", images),
        "clusters": table("clusters", clusters),
        "rejects": table("rejects", rejects),
        "splits": table("splits", splits),
    }


def overlap(clusters: pl.LazyFrame, roles: pl.LazyFrame) -> pl.DataFrame:
    left = clusters.select("rule", "cluster_id", "image_id").join(roles, on="image_id")
    both = left.join(left, on=["rule", "cluster_id"], suffix="_other")
    pairs = both.filter(pl.col("image_id") != pl.col("image_id_other"))
    per_cell = pairs.group_by("rule", "role", other="role_other")
    return per_cell.agg(images=pl.col("image_id").n_unique()).collect()


def summary_of(frames: Frames, created_at: datetime | None = WHEN) -> dict[str, Any]:
    def scan(name: str) -> pl.LazyFrame:
        return frames.get(name, table(name, [])).lazy()

    return summarize(scan, lake="lakes/toy", release=3, created_at=created_at, overlap=overlap)


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    return summary_of(toy())


def test_sources_are_counted(summary: dict[str, Any]) -> None:
    test, train = summary["sources"]
    assert (test["source"], test["images"], test["rejects"], test["classes"]) == ("toy/test", 4, 7, 2)
    assert (train["source"], train["images"], train["rejects"], train["unlabelled"]) == ("toy/train", 6, 0, 1)
    assert (train["heights"], train["widths"], train["channels"]) == ([8, 8], [8, 8], [1])


def test_a_source_of_rejects_alone_is_listed() -> None:
    frames = toy()
    (source,) = summary_of({"rejects": frames["rejects"]})["sources"]
    assert (source["source"], source["images"], source["rejects"], source["mean"]) == ("toy/test", 0, 7, None)


def test_classes_are_counted_and_unlabelled_images_are_none(summary: dict[str, Any]) -> None:
    train = summary["classes"][1]
    assert [(row["label"], row["images"]) for row in train["rows"]] == [("a", 3), ("b", 2)]
    assert [row["sheet"]["count"] for row in train["rows"]] == [3, 2]
    assert (train["unlabelled"]["label"], train["unlabelled"]["images"]) == (None, 1)
    assert train["unlabelled"]["sheet"]["count"] == 1


def test_rejects_are_counted_by_reason(summary: dict[str, Any]) -> None:
    assert summary["rejects"]["total"] == 7
    first, second = summary["rejects"]["reasons"]
    assert (first["reason"], first["files"], second["reason"], second["files"]) == ("empty", 6, "truncated", 1)
    assert [one["path"] for one in first["examples"]] == [f"{n}.png" for n in (1, 2, 3, 4, 5)]
    assert first["examples"][0]["detail"] == "detail 1"


def test_clusters_are_counted_by_rule(summary: dict[str, Any]) -> None:
    exact, sign = summary["clusters"]
    assert exact == {
        "rule": "exact",
        "clusters": 3,
        "images": 6,
        "redundant": 3,
        "largest": 2,
        "conflicts": 1,
    }
    assert (sign["clusters"], sign["redundant"], sign["largest"], sign["conflicts"]) == (4, 5, 3, 2)


def test_a_rule_without_clusters_is_still_reported() -> None:
    index = {"bucket": 0, "key": 0, "signature": 0, "image_id": ident(0), "label": "a", "rule": "maxpool:2"}
    frames = toy() | {"index": table("index", [index | {"dataset": "toy", "split": "train", "shard": "0"}])}
    last = summary_of(frames)["clusters"][-1]
    assert (last["rule"], last["clusters"], last["redundant"]) == ("maxpool:2", 0, 0)


def test_splits_count_what_was_dropped(summary: dict[str, Any]) -> None:
    (split,) = summary["splits"]
    assert [(r["role"], r["images"], r["kept"], r["dropped"]) for r in split["roles"]] == [
        ("train", 4, 4, 0),
        ("valid", 1, 0, 1),
        ("test", 4, 1, 3),
    ]
    assert split["dropped_by"] == [{"rule": "sign", "images": 4}]


def test_split_matrix_counts_images_with_a_duplicate_in_the_other_role(summary: dict[str, Any]) -> None:
    (split,) = summary["overlap"]["splits"]
    exact, sign = split["rules"]
    assert split["roles"] == ["train", "valid", "test"]
    assert (split["sizes"], split["kept_sizes"]) == ([4, 1, 4], [4, 0, 1])
    assert exact["cells"] == [[0, 0, 2], [0, 0, 0], [2, 0, 0]]
    assert sign["cells"] == [[0, 1, 3], [1, 0, 1], [3, 1, 0]]
    assert sign["kept_cells"] == [[0, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_source_matrix_is_there_with_and_without_splits(summary: dict[str, Any]) -> None:
    for given in (summary, summary_of({k: v for k, v in toy().items() if k != "splits"})):
        sources = given["overlap"]["sources"]
        assert (sources["roles"], sources["sizes"]) == (["toy/test", "toy/train"], [4, 6])
        assert [row["cells"] for row in sources["rules"]] == [[[0, 2], [2, 2]], [[0, 3], [4, 4]]]


def test_clusters_that_cross_roles_show_both_sides(summary: dict[str, Any]) -> None:
    exact, sign = summary["crossing"]
    assert (exact["rule"], exact["split_name"], exact["total"]) == ("exact", "main", 2)
    largest = sign["shown"][0]
    assert (largest["cluster_id"], largest["images"]) == (ident(2).hex(), 3)
    assert [side["side"] for side in largest["sides"]] == ["train", "valid", "test"]
    kept, dropped = largest["sides"][0]["pictures"][0], largest["sides"][2]["pictures"][0]
    assert (kept["path"], kept["kept"], kept["dropped_by"]) == ("a/2.png", True, None)
    assert (dropped["path"], dropped["label"], dropped["source"]) == ("a/8.png", "a", "toy/test")
    assert (dropped["kept"], dropped["dropped_by"], dropped["dropped_for"]) == (False, "sign", "a/2.png")


def test_without_a_split_sources_are_crossed() -> None:
    given = summary_of({k: v for k, v in toy().items() if k != "splits"})
    exact = given["crossing"][0]
    assert (exact["split_name"], exact["total"]) == (None, 2)
    assert [side["side"] for side in exact["shown"][0]["sides"]] == ["toy/test", "toy/train"]
    assert exact["shown"][0]["sides"][0]["pictures"][0]["kept"] is None
    seen = given["headline"]["overlap"]
    assert (seen["role"], seen["other"], seen["images"], seen["of"]) == ("toy/test", "toy/train", 2, 4)


def test_conflicts_are_clusters_with_several_labels(summary: dict[str, Any]) -> None:
    exact, sign = summary["conflicts"]
    assert (exact["total"], sign["total"]) == (1, 2)
    (conflict,) = exact["shown"]
    assert [(side["side"], side["images"]) for side in conflict["sides"]] == [("a", 1), ("b", 1)]
    assert [side["pictures"][0]["path"] for side in conflict["sides"]] == ["a/1.png", "b/7.png"]


def test_headline_is_of_the_rule_that_sanitized(summary: dict[str, Any]) -> None:
    headline = summary["headline"]
    assert (headline["images"], headline["rejects"], headline["rule"]) == (10, 7, "sign")
    assert (headline["redundant"], headline["conflicts"], headline["accuracy"]) == (5, 2, None)
    seen = headline["overlap"]
    assert (seen["role"], seen["other"], seen["images"], seen["of"], seen["after"]) == (
        "test",
        "train",
        3,
        4,
        0,
    )


def test_order_of_rows_does_not_matter(summary: dict[str, Any]) -> None:
    for seed in range(3):
        shuffled = {name: frame.sample(fraction=1, shuffle=True, seed=seed) for name, frame in toy().items()}
        assert summary_of(shuffled) == summary


def test_summary_is_json(summary: dict[str, Any]) -> None:
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (WHEN, "2026-11-21T01:46:00+00:00"),
        (WHEN.replace(tzinfo=None), "2026-11-21T01:46:00+00:00"),
        (WHEN.astimezone(timezone(timedelta(hours=2))), "2026-11-21T01:46:00+00:00"),
        (None, None),
    ],
)
def test_created_at_is_utc(given: datetime | None, expected: str | None) -> None:
    assert summary_of({}, given)["created_at"] == expected


def test_an_empty_lake_has_an_empty_summary() -> None:
    given = summary_of({})
    assert given["headline"] == {
        "images": 0,
        "rejects": 0,
        "sources": 0,
        "rule": None,
        "redundant": None,
        "conflicts": None,
        "overlap": None,
        "accuracy": None,
    }
    empty: list[str] = [
        "sources",
        "classes",
        "clusters",
        "splits",
        "roles",
        "crossing",
        "repeats",
        "conflicts",
        "accuracy",
        "runs",
        "misses",
    ]
    assert [given[key] for key in empty] == [[]] * len(empty)


@pytest.mark.parametrize("alone", ["images", "clusters", "splits", "rejects"])
def test_any_table_may_be_empty(alone: str) -> None:
    assert summary_of({k: v for k, v in toy().items() if k != alone})["lake"] == "lakes/toy"


def test_only_some_clusters_and_pictures_are_shown() -> None:
    images = [image(n, f"{n % 40:02}", "train" if n % 2 else "test", look=n // 2) for n in range(200)]
    pairs: list[set[int]] = [{n, n + 1} for n in range(0, 40, 2)]
    crowd = set(range(100, 200))
    clusters = members("exact", images, *pairs, crowd)
    given = summary_of({"images": table("images", images), "clusters": table("clusters", clusters)})
    (crossing,), (conflicts,) = given["crossing"], given["conflicts"]
    assert (crossing["total"], len(crossing["shown"])) == (21, 12)
    assert crossing["shown"][0]["cluster_id"] == ident(100).hex()
    assert [(s["images"], len(s["pictures"])) for s in crossing["shown"][0]["sides"]] == [(50, 2), (50, 2)]
    widest = conflicts["shown"][0]
    assert (len(widest["sides"]), widest["more_sides"]) == (12, 28)


def scored(release: int, size: int, eval_on: str, value: float, **changes: object) -> dict[str, Any]:
    row = {"run_id": f"run{release}", "model": "logistic", "split_name": "main", "metric": "accuracy"}
    more = {"train_size": size, "eval_on": eval_on, "value": value, "seed": 0, "seconds": 1.0}
    return {**row, **more, "release": release, **changes}


def test_every_run_has_its_curve_and_the_newest_release_comes_first() -> None:
    rows = [scored(1, 50, "original", 0.1), scored(1, 9, "original", 0.2), scored(2, 50, "overlap", 0.99)]
    rows += [scored(2, 50, "original", 0.6), scored(2, 50, "sanitized", 0.5)]
    rows += [
        scored(2, 1000, "original", 0.9),
        scored(2, 1000, "sanitized", 0.75),
        scored(2, 50, "overlap", float("nan")),
    ]
    rows += [scored(1, 50, "original", 0.4, split_name="other"), scored(3, 50, "original", 1.0, metric="loss")]
    given = summary_of(toy() | {"scores": table("scores", rows)})
    main, old, other = given["accuracy"]
    assert (main["model"], main["split_name"], main["release"]) == ("logistic", "main", 2)
    nowhere = dict.fromkeys(("train", "valid", "original", "sanitized", "overlap"))
    effort: dict[str, Any] = {"seconds": 1.0, "memory": None, "chosen": {}}
    unmeasured = {"seeds": None, "train": None, "valid": None, "ends": nowhere, "losses": nowhere, **effort}
    assert main["points"] == [
        {"train_size": 50, "original": 0.6, "sanitized": 0.5, "overlap": 0.99, **unmeasured},
        {"train_size": 1000, "original": 0.9, "sanitized": 0.75, "overlap": None, **unmeasured},
    ]
    assert (main["leakage"], main["train_dropped"]) == ([], None)
    assert (old["split_name"], old["release"], [point["train_size"] for point in old["points"]]) == ("main", 1, [9, 50])
    assert (other["release"], other["points"][0]["sanitized"]) == (1, None)
    best = given["headline"]["accuracy"]
    assert (best["train_size"], best["original"], best["drop"]) == (1000, 0.9, pytest.approx(0.15))


def of_model(model: str, value: float, positive: str | None = None, **changes: object) -> list[dict[str, Any]]:
    settings = json.dumps({} if positive is None else {"positive": positive})
    run = {"model": model, "run_id": model, "settings": settings, **changes}
    return [scored(2, 100, "original", value + 0.01, **run), scored(2, 100, "sanitized", value, **run)]


def headline(*rows: list[dict[str, Any]]) -> Any:
    return summary_of(toy() | {"scores": table("scores", [one for of_model in rows for one in of_model])})["headline"][
        "accuracy"
    ]


def test_the_headline_names_the_best_model_that_is_no_dummy() -> None:
    five = of_model("never", 0.9, "5"), of_model("sgd-binary", 0.8, "5")
    best = headline(*five, of_model("logistic", 0.5), of_model("dense", 0.7))
    assert (best["model"], best["positive"], best["of"], best["sanitized"]) == ("dense", None, 2, 0.7)
    best = headline(*five)
    assert (best["model"], best["positive"], best["of"], best["sanitized"]) == ("sgd-binary", "5", 1, 0.8)
    assert headline(five[0]) is None


def test_a_dummy_is_called_what_it_is() -> None:
    scores = of_model("never", 0.9, "<5>")
    page = render_html(summary_of(toy() | {"scores": table("scores", scores)}))
    assert page.count("a dummy that always answers not &lt;5&gt;") >= 2
    assert ">never" not in page
    assert "only a dummy was scored" in page
    assert "The model" not in page
    page = render_html(summary_of(toy() | {"scores": table("scores", scores + of_model("sgd-binary", 0.8, "<5>"))}))
    assert ". The model sgd-binary (&lt;5&gt; or not) scores 81.0 %" in " ".join(page.split())


def test_overlap_is_counted_by_the_function_that_is_handed_in() -> None:
    asked: list[list[str]] = []

    def count(_: pl.LazyFrame, roles: pl.LazyFrame) -> pl.DataFrame:
        asked.append(sorted(roles.select("role").unique().collect()["role"]))
        return pl.DataFrame(schema={"rule": pl.String, "role": pl.String, "other": pl.String, "images": pl.Int64})

    frames = toy()

    def scan(name: str) -> pl.LazyFrame:
        return frames.get(name, table(name, [])).lazy()

    summarize(scan, lake="x", release=1, created_at=None, overlap=count)
    assert asked == [["test", "train", "valid"], ["test", "train"], ["toy/test", "toy/train"]]
