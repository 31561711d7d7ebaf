"""`why` agrees with plain polars on the tables, for every image of random lakes; and explains rejects."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from commands import Run
from drawn import draw_files
from examples import few
from hypothesis import given
from hypothesis import strategies as st
from lakes import give_up
from making import as_folder, encoded, files_of, recipe
from s3 import Bucket

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError
from pipeline.lake_handle import Lake
from pipeline.recipe.rules import threshold_of
from pipeline.search import why

RULES = ["exact", "cosine:0.85", "photo:0.3"]


def name(lake: Lake, image_id: bytes) -> dict[str, Any]:
    columns = ["image_id", "path", "label", "dataset", "split"]
    row = lake.scan("images").filter(image_id=image_id).select(columns).collect().row(0, named=True)
    return {**row, "image_id": row["image_id"].hex()}


def neighbours(lake: Lake, rule: str, least: float) -> dict[tuple[str, str], float | None]:
    """List the edges of a rule by both ends: pairs, and equal constant images."""
    pairs = lake.scan("pairs").filter(pl.col("score") >= pl.lit(least, pl.Float32), rule=rule).collect()
    edges: dict[tuple[str, str], float | None] = {}
    for left, right, score in pairs.select("left_id", "right_id", "score").rows():
        edges[left.hex(), right.hex()] = edges[right.hex(), left.hex()] = score
    if rule.startswith("cosine"):
        signed = lake.scan("index").filter(pl.col("signature") != 0, rule=rule).collect()
        for _, group in signed.group_by("key", "signature"):
            first = group["image_id"].min()
            assert isinstance(first, bytes)
            for other in set(group["image_id"].to_list()) - {first}:
                edges[first.hex(), other.hex()] = edges[other.hex(), first.hex()] = None
    return edges


def distance(edges: dict[tuple[str, str], float | None], start: str, goal: str) -> int | None:
    seen, front, steps = {start}, {start}, 0
    while goal not in front:
        front = {b for a, b in edges if a in front} - seen
        seen |= front
        steps += 1
        if not front:
            return None
    return steps


def check_chain(steps: list[dict[str, Any]], edges: dict[tuple[str, str], float | None], start: str, goal: str) -> None:
    at = start
    for step in steps:
        assert edges[at, step["image"]["image_id"]] == step["score"]
        at = step["image"]["image_id"]
    assert at == goal or not steps
    assert len(steps) == (distance(edges, start, goal) or 0)


def check_image(lake: Lake, image: dict[str, Any]) -> None:
    """Compare the explanation of an image with the tables."""
    image_id = bytes.fromhex(image["image_id"])
    row = lake.scan("images").filter(image_id=image_id).collect().row(0, named=True)
    for column in ("path", "label", "dataset", "split", "shard", "height", "width", "file_size"):
        assert image[column] == row[column]
    assert image["content_hash"] == row["content_hash"].hex()
    assert image["file_digest"] == row["file_digest"].hex()
    clusters = lake.scan("clusters").collect()
    mine = clusters.filter(image_id=image_id)
    assert [one["rule"] for one in image["clusters"]] == [rule for rule in RULES if rule in mine["rule"].to_list()]
    for one in image["clusters"]:
        (cluster_id,) = mine.filter(rule=one["rule"])["cluster_id"]
        members = clusters.filter(rule=one["rule"], cluster_id=cluster_id)["image_id"].sort().to_list()
        assert (one["cluster_id"], one["images"]) == (cluster_id.hex(), len(members))
        assert one["representative"] == name(lake, cluster_id)
        assert one["others"] == [name(lake, other) for other in members if other != image_id][:10]
        threshold = threshold_of(one["rule"])
        edges = neighbours(lake, one["rule"], threshold.least if threshold else 2)
        inside = {key: score for key, score in edges.items() if {bytes.fromhex(end) for end in key} <= set(members)}
        check_chain(one["chain"], inside, image["image_id"], one["cluster_id"])
        own = {b: score for (a, b), score in inside.items() if a == image["image_id"] and score is not None}
        assert one["pairs"] == len(own)
        closest = sorted((-score, other) for other, score in own.items())[:10]
        assert [(-pair["score"], pair["image"]["image_id"]) for pair in one["closest"]] == closest
    splits = lake.scan("splits").filter(image_id=image_id).sort("split_name").collect()
    assert len(image["roles"]) == len(splits)
    for role, wanted in zip(image["roles"], splits.iter_rows(named=True), strict=True):
        assert {key: role[key] for key in ("role", "rank", "kept", "dropped_by", "reason", "split_name")} == {
            key: wanted[key] for key in ("role", "rank", "kept", "dropped_by", "reason", "split_name")
        }
        keeper = wanted["dropped_for"]
        assert role["dropped_for"] == (None if keeper is None else name(lake, keeper))
        threshold = threshold_of(wanted["dropped_by"] or "")
        if keeper is None or threshold is None:
            assert role["chain"] == []
            continue
        stored = next(rule for rule in RULES if rule.startswith(threshold.compares))
        check_chain(role["chain"], neighbours(lake, stored, threshold.least), image["image_id"], keeper.hex())
    assert len(image["misses"]) == len(lake.scan("misses").filter(image_id=image_id).collect())


@few(1, thorough=40)
@given(st.integers(0, 2**32 - 1), st.integers(4, 16), st.sampled_from(["components", "stars"]))
def test_every_image_is_explained_as_the_tables_say(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, clusters: str
) -> None:
    rng = np.random.default_rng(seed)
    base = tmp_path_factory.mktemp("why")
    drawn = list(draw_files(rng, 2 * count).items())
    as_folder(base / "train", dict(drawn[:count]))
    as_folder(base / "test", dict(drawn[count:]))
    split = {
        "name": "main",
        "sanitize": ["exact", "cosine:0.9", "photo:0.5"],
        "within": str(rng.choice(["all", "first"])),
        "train": {"from": "train"},
        "test": {"from": "test"},
    }
    parts: dict[str, Any] = {"dedup": {"rules": RULES, "clusters": clusters}, "decode": {"mode": "L"}, "split": [split]}
    build(recipe(base, {"uri": "train"}, {"uri": "test", "split": "test"}, **parts), engine=LocalEngine(1))
    lake = Lake(base / "lake")
    images = lake.scan("images").collect()
    for row in images.iter_rows(named=True):
        found = lake.why(row["image_id"].hex())
        assert len(found.images) == 1
        check_image(lake, found.images[0])
    for column in ("content_hash", "file_digest"):
        value = images[column][0]
        found = lake.why(value.hex().upper())
        same = images.filter(pl.col(column) == value).sort("dataset", "split", "path")["image_id"].to_list()
        assert [image["image_id"] for image in found.images] == [image_id.hex() for image_id in same]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of three releases: a source came with the second, a file changed with the third."""
    folder = tmp_path_factory.mktemp("why")
    files = files_of(30)
    as_folder(folder / "train", {**files, "A/bad.png": b""})
    as_folder(folder / "test", {**files_of(8, seed=3), "A/00000.png": files["A/00000.png"], "A/bad.png": b"x"})
    split = {"name": "main", "sanitize": "exact", "train": {"from": "train"}, "test": {"from": "test"}}
    parts: dict[str, Any] = {
        "dedup": {"rules": ["exact"]},
        "split": [split],
        "attributes": [{"patterns": {"number": r"(\d+)"}}],
        "baseline": [{"model": "logistic", "split": "main", "train_sizes": [20], "max_iter": 5, "predict": ["main"]}],
    }
    sources = {"uri": "train"}, {"uri": "test", "split": "test"}
    build(recipe(folder, sources[0], dedup=parts["dedup"]), engine=LocalEngine(1))
    build(recipe(folder, *sources, **parts), engine=LocalEngine(1))
    as_folder(folder / "train", {"A/00002.png": encoded(np.full((28, 28), 9, np.uint8))})
    build(recipe(folder, *sources, **parts), engine=LocalEngine(1))
    return folder


def test_the_release_since_which_an_image_is_there(base: Path) -> None:
    lake = Lake(base / "lake")
    assert lake.release == 3
    for path, of_train in (("A/00000.png", 1), ("A/00002.png", 3)):
        assert {image["split"]: image["since"] for image in lake.why(path).images} == {"test": 2, "train": of_train}
    before = Lake(base / "lake", 2).why("A/00002.png").images
    assert {image["split"]: image["since"] for image in before} == {"test": 2, "train": 1}
    assert not any(image["or_earlier"] for image in before)


def test_a_lake_whose_first_releases_were_deleted_says_so(base: Path, tmp_path: Path) -> None:
    root = str(shutil.copytree(base / "lake", tmp_path / "lake"))
    give_up(root, [1])
    since = {image["split"]: (image["since"], image["or_earlier"]) for image in Lake(root).why("A/00000.png").images}
    assert since == {"test": (2, True), "train": (2, True)}


def test_the_command_explains_in_plain_words(base: Path, run: Run) -> None:
    lines = run("why", base / "lake", "A/00000.png").stdout.split("\n")
    assert lines[0] == "A/00000.png of d/test"
    assert "  in the lake since release 2, from test, shard " in "\n".join(lines)
    assert "  exact: in a cluster of 2 images (equal pixels and equal shape)" in lines
    assert "    equal keys: A/00000.png of d/train" in lines
    assert "  split main: test, dropped by exact (overlap: another role keeps a duplicate)" in lines
    assert "    for A/00000.png of d/train, which has an equal key" in lines
    assert "  attribute number: 00000" in lines
    assert any(line.startswith("  predicted by logistic in test of main: ") for line in lines)
    misses = Lake(base / "lake").scan("misses").collect()
    assert len(misses)
    text = run("why", base / "lake", misses["image_id"][0].hex()).stdout
    assert "  misclassified by logistic@main, trained on 20 images: " in text
    printed = json.loads(run("why", base / "lake", "A/00000.png", "--json").stdout)
    assert printed["images"] == Lake(base / "lake").why("A/00000.png").images


def test_a_reject_of_several_sources_is_explained(base: Path, run: Run) -> None:
    text = run("why", base / "lake", "A/bad.png").stdout
    assert text.count("A/bad.png of d/") == 2
    assert "A/bad.png of d/train is a reject, not an image\n  empty: the file has no bytes\n" in text
    found = Lake(base / "lake").why("A/bad.png")
    assert [(one["split"], one["reason"]) for one in found.rejects] == [("test", "not_an_image"), ("train", "empty")]
    assert found.images == []


def test_what_the_lake_does_not_have_is_an_error_that_names_the_nearest(base: Path) -> None:
    with pytest.raises(LakeError, match="has no image with the path, id or digest '00004.png'; did you mean 'A/00004"):
        Lake(base / "lake").why("00004.png")
    with pytest.raises(LakeError, match=f"no image with the path, id or digest '{'0' * 64}'"):
        Lake(base / "lake").why("0" * 64)
    with pytest.raises(LakeError, match="no image with the path"):
        Lake(base / "lake").why("\ud800")
    with pytest.raises(TypeError, match="item"):
        Lake(base / "lake").why(7)  # type: ignore[arg-type] # what it refuses


def test_a_digest_of_very_many_images_is_not_explained_for_all(base: Path, run: Run) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(why, "_EXPLAINED", 1)
        digest = Lake(base / "lake").why("A/00000.png").images[0]["content_hash"]
        found = Lake(base / "lake").why(digest)
        assert (len(found.images), found.more) == (1, 1)
        assert "1 more image of the lake" in run("why", base / "lake", digest).stdout


def test_why_in_a_bucket_is_why_in_a_folder(base: Path, lake_bucket: Bucket, run: Run) -> None:
    place = f"s3://{lake_bucket.name}/lake"
    parts: dict[str, Any] = {"dedup": {"rules": RULES}}
    for root in ("other", place):
        build(recipe(base, {"uri": "train"}, lake={"root": root}, **parts), engine=LocalEngine(1))
    expected = Lake(base / "other").why("A/00000.png")
    assert Lake(place).why("A/00000.png") == expected
    assert json.loads(run("why", place, "A/00000.png", "--json").stdout)["images"] == expected.images


def test_an_image_of_an_earlier_release_is_named_with_that_release(tmp_path: Path) -> None:
    files = files_of(4)
    as_folder(tmp_path / "train", files)
    made = recipe(tmp_path, {"uri": "train"})
    build(made, engine=LocalEngine(1))
    gone = min(files)
    (tmp_path / "train" / gone).unlink()
    build(made, engine=LocalEngine(1))
    lake = Lake(tmp_path / "lake")
    row = lake.at(1).scan("images").filter(path=gone).collect().row(0, named=True)
    for item in (gone, row["image_id"], row["file_digest"], row["content_hash"].hex()):
        with pytest.raises(LakeError, match=r"release 2 has no image '.*', but release 1 has it: add --release 1"):
            lake.why(item)
    with pytest.raises(LakeError, match="has no image with the path, id or digest 'A/none.png'"):
        lake.why("A/none.png")


def test_ids_are_given_as_bytes_too(base: Path) -> None:
    lake = Lake(base / "lake")
    image_id = lake.scan("images").select("image_id").head(1).collect().item()
    assert lake.why(image_id) == lake.why(image_id.hex())
