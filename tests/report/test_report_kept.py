"""Cards of clusters: the image that was kept is always shown, and repeats inside a role are groups of their own."""

import re
from typing import Any

import polars as pl
import pytest
from pages import Page
from scored import ident, image, summary_of, table

from pipeline.report import pictures, render_html
from pipeline.report.clusters import describe_members, render_clusters
from pipeline.report.pictures import read_scaled

Rows = list[dict[str, Any]]


def dropped(number: int, role: str, by: str, target: int) -> dict[str, Any]:
    return row(number, role) | {"kept": False, "dropped_by": by, "dropped_for": ident(target), "reason": "overlap"}


def row(number: int, role: str) -> dict[str, Any]:
    drawn = {"label_index": 0, "kept": True, "split_name": "main"}
    return {"role": role, "rank": number, "image_id": ident(number), **drawn}


def members(rule: str, *clusters: range, labels: str = "a") -> Rows:
    place = {"dataset": "toy", "split": "train", "rule": rule}
    return [
        {"cluster_id": ident(cluster[0]), "image_id": ident(n), "label": labels[n % len(labels)], **place}
        for cluster in clusters
        for n in cluster
    ]


def frames(count: int, clusters: Rows, splits: Rows, labels: str = "a") -> dict[str, pl.DataFrame]:
    images = [image(n, labels[n % len(labels)], "train") for n in range(count)]
    return {
        "images": table("images", images),
        "clusters": table("clusters", clusters),
        "splits": table("splits", splits),
    }


def shown(card: dict[str, Any]) -> dict[str | None, list[int]]:
    return {side["side"]: [int(one["image_id"], 16) for one in side["pictures"]] for side in card["sides"]}


def page(given: dict[str, pl.DataFrame]) -> str:
    html = render_html(summary_of(given))
    assert Page(html).open == []
    return re.sub(r"\s+", " ", html)


def test_the_kept_image_is_shown_first_however_many_others_there_are() -> None:
    """Image 9 is kept, and has the largest id of the cluster."""
    splits = [dropped(n, "train" if n < 7 else "test", "exact", 9) for n in range(9)] + [row(9, "test")]
    summary = summary_of(frames(10, members("exact", range(10)), splits))
    (card,) = summary["crossing"][0]["shown"]
    assert shown(card) == {"train": [0, 1], "test": [9, 7]}
    assert card["instead"] is None
    (conflict,) = summary_of(frames(10, members("exact", range(10), labels="ab"), splits, "ab"))["conflicts"]
    assert shown(conflict["shown"][0]) == {"a": [0, 2], "b": [9, 1]}
    assert conflict["split_name"] == "main"


def test_the_label_of_the_kept_image_is_among_those_shown() -> None:
    letters = "abcdefghijklmnopqrst"
    splits = [dropped(n, "train", "exact", 19) for n in range(19)] + [row(19, "train")]
    (entry,) = summary_of(frames(20, members("exact", range(20), labels=letters), splits, letters))["conflicts"]
    (card,) = entry["shown"]
    assert [side["side"] for side in card["sides"]] == [*"abcdefghijk", "t"]
    assert card["more_sides"] == 8


def test_an_image_of_another_rules_cluster_is_shown_where_it_was_kept_instead() -> None:
    """By exact, 0 and 1 are a cluster. 0 was dropped for 1, later 1 for 2 by sign, and 2 for 3 by cosine."""
    splits = [dropped(0, "test", "exact", 1), dropped(1, "train", "sign", 2), dropped(2, "train", "cosine:0.95", 3)]
    given = frames(4, members("exact", range(2)) + members("sign", range(1, 3)), [*splits, row(3, "valid")])
    entry = summary_of(given)["crossing"][0]
    (card,) = entry["shown"]
    assert (shown(card), int(card["instead"]["image_id"], 16)) == ({"train": [1], "test": [0]}, 3)
    assert (card["instead"]["role"], card["instead"]["kept"]) == ("valid", True)
    assert "kept instead <small>in valid</small>" in page(given)


def test_images_that_were_dropped_for_each_other_have_no_kept_one() -> None:
    splits = [dropped(0, "train", "exact", 1), dropped(1, "test", "exact", 0)]
    given = frames(2, members("exact", range(2), labels="ab"), splits, "ab")
    (card,) = summary_of(given)["crossing"][0]["shown"]
    assert card["instead"] is None
    html = page(given)
    assert html.count("None of these images was kept.") == 2
    assert "kept instead" not in html
    kept = frames(2, members("exact", range(2)), [row(0, "train"), row(1, "test")])
    assert "None of these images" not in page(kept)


def test_repeats_are_groups_of_one_role() -> None:
    """One cluster of 3 train and 8 test images, one of a train and a test image, one of 2 test images."""
    clusters = members("exact", range(11), range(11, 13), range(13, 15))
    roles = ["train"] * 3 + ["test"] * 8 + ["train", "test", "test", "test"]
    splits = [row(n, role) for n, role in enumerate(roles)]
    splits[:10] = [dropped(n, roles[n], "exact", 10) for n in range(10)]
    (entry,) = summary_of(frames(15, clusters, splits))["repeats"]
    assert (entry["rule"], entry["split_name"], entry["total"]) == ("exact", "main", 3)
    assert [(card["images"], shown(card)) for card in entry["shown"]] == [
        (8, {"test": [10, 3, 4, 5, 6, 7]}),
        (2, {"test": [13, 14]}),
        (3, {"train": [0, 1, 2]}),
    ]
    assert [card["instead"] and int(card["instead"]["image_id"], 16) for card in entry["shown"]] == [None, None, 10]


def test_without_a_split_repeats_are_of_a_source() -> None:
    given = frames(4, members("exact", range(3)), [])
    (entry,) = summary_of(given)["repeats"]
    assert [shown(card) for card in entry["shown"]] == [{"toy/train": [0, 1, 2]}]
    assert "Repeats inside a source" in page(given)
    assert "No source has two images of one cluster." in page(
        frames(1, [], [])
        | {
            "index": table(
                "index",
                [
                    {
                        "bucket": 0,
                        "key": 0,
                        "signature": 0,
                        "image_id": ident(0),
                        "label": "a",
                        "rule": "exact",
                        "dataset": "toy",
                        "split": "train",
                        "shard": "0",
                    }
                ],
            )
        }
    )


def review(*clusters: tuple[int, int], split: str | None = "main") -> dict[str, Any]:
    given = {"lake": "toy", "release": 1, "rule": "exact", "split": split, "headline": "All"}
    shape = {"pairs": 1, "diameter": 1, "exact": True, "lowest": 1.0}
    return {**given, "shown": [{"cluster_id": ident(first), "images": images, **shape} for first, images in clusters]}


def of_roles(clusters: Rows, roles: list[str | None]) -> pl.LazyFrame:
    rows = [
        {
            **{key: one[key] for key in ("cluster_id", "image_id", "label")},
            "side": roles[int.from_bytes(one["image_id"])],
        }
        for one in clusters
    ]
    return pl.LazyFrame(rows, schema_overrides={"side": pl.String})


def test_a_page_of_clusters_shows_kept_images_first_and_some_of_a_large_role() -> None:
    clusters = members("exact", range(40), range(40, 43))
    roles: list[str | None] = [*["train"] * 38, "test", None, "train", "valid", "test"]
    splits = [dropped(n, "train", "exact", 37) for n in range(37)] + [
        row(37, "train"),
        row(38, "test"),
        row(40, "train"),
    ]
    given = frames(43, clusters, splits)
    asked = review((0, 40), (40, 3))
    first, second = describe_members(asked, of_roles(clusters, roles), given["splits"].lazy())
    assert [(side["side"], side["images"], len(side["ids"])) for side in first["sides"]] == [
        ("train", 38, 8),
        ("test", 1, 1),
        (None, 1, 1),
    ]
    assert first["sides"][0]["ids"][0] == ident(37)
    assert (first["crossing"], first["repeated"], first["conflict"]) == (True, True, False)
    assert (second["crossing"], second["repeated"]) == (True, False)
    html = render_clusters(asked, of_roles(clusters, roles), given["images"].lazy(), given["splits"].lazy())
    assert Page(html).open == []
    assert html.count("<section") == 2
    assert "in no role" in html
    assert "repeats inside a role only" in html
    empty = render_clusters(review(), of_roles(clusters, roles).clear(), given["images"].lazy(), given["splits"].lazy())
    assert "There are no clusters to review." in empty


def test_pictures_are_read_in_blocks_and_kept_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_BLOCK_BYTES", 64 * 3)
    sizes: list[int] = []
    real = pictures.read_pictures

    def read(images: pl.LazyFrame, wanted: pl.Series, *, check: bool) -> pl.DataFrame:
        rows = real(images, wanted, check=check)
        sizes.append(len(rows))
        return rows

    monkeypatch.setattr(pictures, "read_pictures", read)
    images = table("images", [image(n, "a", "train") for n in range(10)])
    found = list(read_scaled(images.lazy(), images["image_id"][:8]))
    assert [int.from_bytes(one["image_id"]) for one in found] == list(range(8))
    assert max(sizes) <= 3
    assert sum(sizes) == 8
    assert all("pixels" not in one for one in found)
    assert [one["image"].tobytes() for one in found] == images["pixels"][:8].to_list()
