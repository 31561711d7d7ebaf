"""What `Lake.diff` and `imagelake diff` list equals a comparison image by image, on random lakes and on a built one."""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from commands import Run
from examples import few
from hypothesis import given
from hypothesis import strategies as st
from making import DATA, as_folder, files_of, recipe
from s3 import Bucket

import schemas
from pipeline.builder.build import build
from pipeline.checks import run_checks
from pipeline.diff import Diff, Side, changed_keys, compare_releases
from pipeline.engines.local import LocalEngine
from pipeline.errors import NoReleaseError
from pipeline.lake_handle import Lake
from pipeline.recipe import read_recipe

ARCHIVE = DATA / "lake-0.5.0.tar.gz"

LABELS = ["a", "b", None]
ROLES = ["train", "valid", "test"]


class Image(NamedTuple):
    digest: int
    label: str | None


class Release(NamedTuple):
    """A release as plain values: images by number, rows of a split and clusters by rule by image, scores by model."""

    images: Mapping[int, Image]
    splits: Mapping[str, Mapping[int, tuple[str, bool]]]
    clusters: Mapping[str, Mapping[int, int]]
    scores: Mapping[str, float]


def id_of(number: int) -> bytes:
    return bytes(15) + bytes([number])


@st.composite
def releases(draw: st.DrawFn) -> Release:
    numbers = st.integers(0, 7)
    images = draw(st.dictionaries(numbers, st.builds(Image, st.integers(0, 4), st.sampled_from(LABELS)), max_size=8))
    of_images = st.sampled_from(sorted(images)) if images else st.nothing()
    row = st.tuples(st.sampled_from(ROLES), st.booleans())
    splits = draw(st.dictionaries(st.sampled_from(["main", "other"]), st.dictionaries(of_images, row)))
    clusters = draw(st.dictionaries(st.sampled_from(["exact", "sign"]), st.dictionaries(of_images, st.integers(0, 2))))
    return Release(
        images, splits, clusters, draw(st.dictionaries(st.sampled_from("xyz"), st.sampled_from([0.5, 0.75])))
    )


def tables(release: Release) -> dict[str, pl.LazyFrame]:
    rows: dict[str, list[dict[str, Any]]] = {
        "images": [
            {
                "image_id": id_of(number),
                "path": f"{number}.png",
                "label": image.label,
                "file_digest": bytes([image.digest]) * 32,
                "content_hash": bytes([image.digest]) * 16,
                "dataset": "d",
                "split": "train",
            }
            for number, image in release.images.items()
        ],
        "splits": [
            {"split_name": name, "image_id": id_of(number), "role": role, "kept": kept}
            for name, members in release.splits.items()
            for number, (role, kept) in members.items()
        ],
        "clusters": [
            {"rule": rule, "cluster_id": b"%d" % cluster, "image_id": id_of(number)}
            for rule, members in release.clusters.items()
            for number, cluster in members.items()
        ],
        "scores": [
            {"model": model, "split_name": "main", "metric": "accuracy", "eval_on": "sanitized", "value": value}
            for model, value in release.scores.items()
        ],
        "rejects": [],
        "verdicts": [],
        "issues": [],
    }
    return {name: pl.LazyFrame(found, schema=pl.Schema(schemas.TABLES[name].schema)) for name, found in rows.items()}


def compare(before: Release, after: Release) -> Diff:
    """Compare two releases whose files hold one image each, so that equal rows are in files of both."""
    old, new = tables(before), tables(after)

    def without(one: dict[str, pl.LazyFrame], other: dict[str, pl.LazyFrame], table: str) -> pl.LazyFrame:
        return one[table].join(other[table], on=one[table].collect_schema().names(), how="anti", nulls_equal=True)

    return compare_releases(
        Side(1, {}, old.__getitem__, lambda table: without(old, new, table)),
        Side(2, {}, new.__getitem__, lambda table: without(new, old, table)),
    )


def match(before: Release, after: Release) -> dict[int, int]:
    """Match the images of two releases one after the other: same place, same label, any; copies in order."""
    found: dict[int, int] = {}
    for fits in (
        lambda old, new: old == new,
        lambda old, new: before.images[old].label == after.images[new].label,
        lambda old, new: True,  # noqa: ARG005 - any copy
    ):
        for old in sorted(before.images):
            copies = [
                new
                for new in sorted(after.images)
                if old not in found
                and new not in found.values()
                and before.images[old].digest == after.images[new].digest
                and fits(old, new)
            ]
            found |= {old: copies[0]} if copies else {}
    return found


def numbers(rows: pl.DataFrame, *columns: str) -> list[Any]:
    """List the rows as plain values, ids as the numbers of images."""
    values = rows.select(columns).rows()
    return sorted((tuple(v[-1] if isinstance(v, bytes) else v for v in row) for row in values), key=repr)


@given(releases(), releases())
@few(20, thorough=300)
def test_a_diff_equals_a_comparison_image_by_image(before: Release, after: Release) -> None:
    found = compare(before, after)
    pairs = match(before, after)
    assert numbers(found.added, "image_id") == [(n,) for n in sorted(after.images) if n not in pairs.values()]
    assert numbers(found.gone, "image_id") == [(n,) for n in sorted(before.images) if n not in pairs]
    labels = {old: (before.images[old].label, after.images[new].label) for old, new in pairs.items()}
    assert numbers(found.relabelled, "image_id_before", "image_id", "label_before", "label") == sorted(
        ((old, new, *labels[old]) for old, new in pairs.items() if labels[old][0] != labels[old][1]), key=repr
    )
    assert numbers(found.moved, "image_id_before", "image_id") == sorted(
        ((old, new) for old, new in pairs.items() if labels[old][0] == labels[old][1] and old != new), key=repr
    )
    roles: list[Any] = []
    dropped: list[Any] = []
    kept: list[Any] = []
    for name in set(before.splits) & set(after.splits):
        if not before.splits[name] or not after.splits[name]:
            continue
        for old, new in pairs.items():
            was, now = before.splits[name].get(old), after.splits[name].get(new)
            if (was and was[0]) != (now and now[0]):
                roles.append((name, new, was and was[0], now and now[0]))
            if was and now and was[1] != now[1]:
                (dropped if was[1] else kept).append((name, new))
    assert numbers(found.changed_role, "split_name", "image_id", "role_before", "role") == sorted(roles, key=repr)
    assert numbers(found.newly_dropped, "split_name", "image_id") == sorted(dropped, key=repr)
    assert numbers(found.newly_kept, "split_name", "image_id") == sorted(kept, key=repr)
    merged: list[Any] = []
    split: list[Any] = []
    for rule in set(before.clusters) & set(after.clusters):
        links = {
            (before.clusters[rule][old], after.clusters[rule][new])
            for old, new in pairs.items()
            if old in before.clusters[rule] and new in after.clusters[rule]
        }
        for ends, listed, sizes in ((links, split, before), ({(b, a) for a, b in links}, merged, after)):
            for one in {end[0] for end in ends}:
                others = sorted(other for end, other in ends if end == one)
                if len(others) > 1:
                    size = list(sizes.clusters[rule].values()).count(one)
                    listed.append((rule, b"%d" % one, size, [b"%d" % other for other in others]))
    assert found.clusters_merged.rows() == sorted(merged)
    assert found.clusters_split.rows() == sorted(split)
    models = {*before.scores, *after.scores}
    assert found.scores.select("model", "before", "after").rows() == [
        (model, before.scores.get(model), after.scores.get(model))
        for model in sorted(models)
        if before.scores.get(model) != after.scores.get(model)
    ]


@given(releases())
@few(5)
def test_a_release_does_not_differ_from_itself(release: Release) -> None:
    assert {name: len(rows) for name, rows in compare(release, release).kinds.items() if len(rows)} == {}


PLANNED = {"added": 2, "gone": 2, "relabelled": 1, "moved": 1, "newly_dropped": 1, "newly_kept": 1}


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Two releases of 60 train and 20 test images, with changes of every kind. Read only."""
    base = tmp_path_factory.mktemp("changed")
    train, test = files_of(60), files_of(20, seed=1)
    copies = {f"A/c{i}.png": train[f"A/{2 * i:05d}.png"] for i in range(3)}
    as_folder(base / "train", train)
    as_folder(base / "test", {**test, **copies})
    made = recipe(
        base,
        {"uri": "train"},
        {"uri": "test", "split": "test"},
        dedup={"rules": ["exact"]},
        split=[{"name": "main", "sanitize": "exact", "train": {"from": "train"}, "test": {"from": "test"}}],
        baseline=[{"model": "logistic", "split": "main"}],
    )
    build(made, engine=LocalEngine(1))
    (base / "train/A/00020.png").rename(base / "train/B/other.png")
    (base / "train/A/00022.png").rename(base / "train/A/moved.png")
    # The copy in test is kept from now on. That of another test image, which is new in train, drops it.
    (base / "train/A/00000.png").unlink()
    as_folder(base / "train", {"A/new.png": test["A/00000.png"]})
    # An edited file is another picture.
    as_folder(base / "train", {"B/00001.png": files_of(1, seed=2)["A/00000.png"]})
    build(made, engine=LocalEngine(1))
    return Lake(base / "lake")


def test_a_diff_of_two_releases_of_a_lake(changed: Lake) -> None:
    found = changed.diff(1)
    counts = {name: len(rows) for name, rows in found.kinds.items()}
    assert {name: counts[name] for name in PLANNED} == PLANNED
    assert (found.before, found.after, found.matched_by) == (1, 2, "file_digest")
    assert found.added["path"].to_list() == ["A/new.png", "B/00001.png"]
    assert found.gone["path"].to_list() == ["A/00000.png", "B/00001.png"]
    assert found.relabelled.select("path_before", "path", "label_before", "label").rows() == [
        ("A/00020.png", "B/other.png", "A", "B")
    ]
    assert found.moved.select("path_before", "path", "label").rows() == [("A/00022.png", "A/moved.png", "A")]
    assert found.newly_kept.select("split_name", "role", "dropped_by_before", "path").rows() == [
        ("main", "test", "exact", "A/c0.png")
    ]
    assert found.newly_dropped.select("role", "dropped_by", "reason", "path").rows() == [
        ("test", "exact", "overlap", "A/00000.png")
    ]
    assert counts["scores"] > 0
    assert (found.scores["before"] != found.scores["after"]).all()
    # The other way round, every change is its opposite.
    back = changed.at(1).diff(2).kinds
    opposite = {"added": "gone", "gone": "added", "newly_dropped": "newly_kept", "newly_kept": "newly_dropped"}
    assert {opposite.get(name, name): len(rows) for name, rows in back.items()} == counts
    assert not any(map(len, changed.diff(2).kinds.values()))


def test_only_changed_files_of_images_are_read(tmp_path: Path) -> None:
    as_folder(tmp_path / "a", files_of(4))
    as_folder(tmp_path / "b", files_of(4, seed=1))
    made = recipe(tmp_path, {"uri": "a", "dataset": "a"}, {"uri": "b", "dataset": "b"})
    build(made, engine=LocalEngine(1))
    (tmp_path / "b/A/00000.png").unlink()
    build(made, engine=LocalEngine(1))
    lake = Lake(tmp_path / "lake")
    rows = lake.snapshot.scan_changed("images", lake.at(1).snapshot)
    assert rows.select("dataset", "path").sort("path").collect().rows() == [
        ("b", "A/00002.png"),
        ("b", "B/00001.png"),
        ("b", "B/00003.png"),
    ]


def test_the_command_prints_counts_rows_and_json(changed: Lake, run: Run, tmp_path: Path) -> None:
    counts = run("diff", changed.root, 1).stdout
    assert "│ relabelled      ┆      ┆ 1 " in counts
    assert "│ newly dropped   ┆ main ┆ 1 " in counts
    assert "B/other.png" not in counts
    listed = run("diff", changed.root, 1, 2, "--list").stdout
    assert all(path in listed for path in ("B/other.png", "A/moved.png", "A/new.png", "A/00000.png"))
    file = tmp_path / "diff.html"
    data = json.loads(run("diff", changed.root, 1, "--json", "--html", file).stdout)
    assert list(data)[7:] == [*changed.diff(1).kinds, "page"]
    assert {name: data[name]["count"] for name in PLANNED} == PLANNED
    assert all(data[name]["count"] == len(data[name]["rows"]) for name in PLANNED)
    assert data["relabelled"]["rows"][0]["label_before"] == "A"
    page = file.read_text(encoding="utf-8")
    # Images of the five kinds, and no script.
    assert page.count("<img") == sum(PLANNED.values())
    assert "<script" not in page


def test_a_release_that_is_gone_is_named(changed: Lake, run: Run) -> None:
    with pytest.raises(NoReleaseError, match="has no release 7; there are 1 to 2"):
        run("diff", changed.root, 7)
    with pytest.raises(NoReleaseError, match="has no release 7; there are 1 to 2"):
        run("diff", changed.root, 1, 7)
    with pytest.raises(TypeError, match="release is 'one'"):
        changed.diff("one")  # type: ignore[arg-type]


def test_names_from_sources_are_harmless_in_the_terminal_and_the_page(tmp_path: Path, run: Run) -> None:
    evil = "<b>\x1b[2J\u202e"
    as_folder(tmp_path / "train", files_of(4))
    made = recipe(tmp_path, {"uri": "train"})
    build(made, engine=LocalEngine(1))
    (tmp_path / "train" / evil).mkdir()
    (tmp_path / "train/A/00000.png").rename(tmp_path / "train" / evil / f"{evil}.png")
    build(made, engine=LocalEngine(1))
    shown = run("diff", tmp_path / "lake", 1, "--list", "--html", tmp_path / "diff.html").stdout
    page = (tmp_path / "diff.html").read_text(encoding="utf-8")
    assert "relabelled: 1" in shown
    assert not any(letter in text for letter in ("\x1b", "\u202e") for text in (shown, page))
    assert "<b>\\x1b" not in page
    assert "&lt;b&gt;" in page
    rows = json.loads(run("diff", tmp_path / "lake", 1, "--json").stdout)["relabelled"]["rows"]
    assert rows[0]["path"] == f"{evil}/{evil}.png"


def test_diff_and_check_in_a_bucket_are_those_of_a_folder(tmp_path: Path, lake_bucket: Bucket, run: Run) -> None:
    as_folder(tmp_path / "train", {**files_of(8), "A/copy.png": files_of(1)["A/00000.png"]})
    check = [{"rule": "exact", "conflicts": 0}, {"min_per_class": 4}, {"drift": 0.1, "against": "previous"}]
    for size in (8, 10):
        as_folder(tmp_path / "train", files_of(size))
        for root in ("lake", f"s3://{lake_bucket.name}/lake"):
            made = recipe(tmp_path, {"uri": "train"}, lake={"root": root}, dedup={"rules": ["exact"]}, check=check)
            build(made, engine=LocalEngine(1))
    here, there = Lake(tmp_path / "lake"), Lake(f"s3://{lake_bucket.name}/lake")
    kinds = there.diff(1).kinds
    assert all(rows.equals(kinds[name]) for name, rows in here.diff(1).kinds.items())
    assert len(kinds["added"]) == 2
    here_found, there_found = ([one[:7] for one in run_checks(lake).results] for lake in (here, there))
    assert here_found == there_found
    assert run("check", there.root, "--junit", tmp_path / "checks.xml").exit_code == 0
    assert run("diff", there.root, 1, "--html", tmp_path / "diff.html").exit_code == 0


@pytest.mark.skipif(not ARCHIVE.exists(), reason="the lake of 0.5.0 (../shared/data) is not here")
def test_pictures_of_a_lake_of_0_5_are_matched_by_their_pixels(tmp_path: Path, run: Run) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    root = tmp_path / "v0.5.0" / "lake"
    (first, second) = sorted((tmp_path / "v0.5.0" / "g" / "train").rglob("*.png"))[:2]
    first.rename(first.with_name("moved.png"))
    second.unlink()
    build(read_recipe(tmp_path / "v0.5.0" / "recipe.toml"), engine=LocalEngine(1))
    lake = Lake(root)
    found = lake.diff(lake.release - 1)
    assert (found.matched_by, len(found.added), len(found.gone), len(found.moved)) == ("content_hash", 0, 1, 1)
    assert "matched by content_hash" in run("diff", root, lake.release - 1).stdout


def test_totals_settings_and_pixels_are_compared(tmp_path: Path, run: Run) -> None:
    as_folder(tmp_path / "train", {**files_of(6), "A/empty.png": b""})
    build(recipe(tmp_path, {"uri": "train"}), engine=LocalEngine(1))
    (tmp_path / "train/A/empty.png").unlink()
    as_folder(tmp_path / "train", {"C/new.png": files_of(1, seed=5)["A/00000.png"]})
    build(recipe(tmp_path, {"uri": "train"}, decode={"size": [10, 10]}), engine=LocalEngine(1))
    found = Lake(tmp_path / "lake").diff(1)
    assert found.totals == {"images": (6, 7), "rejects": (1, 0), "classes": (2, 3), "verdicts": (0, 0)}
    assert found.settings == ["decode.size"]
    assert found.other_pixels == 6
    text = run("diff", tmp_path / "lake", 1, "--html", tmp_path / "page.html").stdout
    assert "images 6 -> 7; rejects 1 -> 0; classes 2 -> 3\n" in text
    assert "changed in the recipe: decode.size\n6 unchanged files with other stored pixels\n" in text
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "changed in the recipe: decode.size" in page


def test_changed_keys_name_parts_by_their_names() -> None:
    before = {"split": [{"name": "a", "seed": 1}, {"name": "b", "seed": 1}], "decode": {"size": [28, 28]}, "x": 1}
    after = {"split": [{"name": "b", "seed": 2}, {"name": "a", "seed": 1}], "decode": {"size": [28, 28]}, "y": None}
    assert changed_keys(before, after) == ["split.b.seed", "x"]
    assert changed_keys(before, before) == []
    assert changed_keys({"check": [{"rejects": 0}]}, {"check": [{"rejects": 1}, {"drift": 0.1}]}) == [
        "check.0.rejects",
        "check.1",
    ]
