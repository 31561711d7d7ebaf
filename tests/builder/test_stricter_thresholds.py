"""Splits drawn by a stricter threshold than the stored one: the same rows as if that were stored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from lakes import commit, publish, read_meta, versions, write_part
from making import as_folder, encoded, pictures, recipe
from PIL import Image
from sklearn.datasets import load_sample_image

from pipeline.builder.build import Built, build, plan
from pipeline.engines.local import LocalEngine
from pipeline.errors import RecipeError
from pipeline.lake.delta_log import Metadata
from pipeline.lake_handle import Lake
from pipeline.recipe import Recipe
from pipeline.review import ReviewQuery, review_clusters, review_pairs
from pipeline.verify import verify
from schemas import TABLES

pytestmark = pytest.mark.slow

# By stored rule, a stricter one that finds less in these pictures.
STRICTER = {
    "cosine:0.85": "cosine:0.95",
    "hamming:8": "hamming:2",
    "hamming:9:dhash": "hamming:3:dhash",
    "photo:0.5": "photo:0.7",
    "photo:0.45:upright": "photo:0.6:upright",
    "embedding:v:0.8": "embedding:v:0.95",
}
DERIVED = ("index", "pairs", "clusters")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chains of pictures, each a bit unlike the one before, dealt out to train and test; and a vector for each."""
    base = tmp_path_factory.mktemp("chains")
    photo, chance = Image.fromarray(load_sample_image("china.jpg")).convert("L"), np.random.default_rng(3)
    files: dict[str, dict[str, bytes]] = {"train": {}, "test": {}}
    vectors: dict[str, list[tuple[str, list[float]]]] = {"train": [], "test": []}
    for number in range(14):
        corner, vector = chance.uniform((0, 100), (500, 300)), chance.normal(size=8)
        for step in range(5):
            role, path = ("train", "test")[(step + number) % 2], f"{'AB'[number % 2]}/{number:02d}-{step}.png"
            x, y = corner
            shown = photo.resize((32, 32), Image.Resampling.BOX, box=(x, y, x + 90, y + 90))
            files[role][path] = encoded(np.asarray(shown))
            vectors[role].append((path, vector.tolist()))
            corner = corner + chance.uniform(0, 1.2 * (step + 1), 2)
            vector = vector + chance.normal(0, 0.12 * (step + 1), 8)
    for role, made in files.items():
        as_folder(base / role, made)
        rows = pl.DataFrame(vectors[role], schema=["path", "embedding"], orient="row")
        rows.write_parquet(base / f"{role}.parquet")
    return base


def asked(base: Path, root: Path, rules: list[str], splits: list[dict[str, Any]], **dedup: str) -> Recipe:
    listed = [{"name": "v", "uri": f"{role}.parquet", "dataset": "d", "split": role} for role in ("train", "test")]
    return recipe(
        base,
        {"uri": "train"},
        {"uri": "test", "split": "test"},
        lake={"root": str(root)},
        dedup={"rules": rules, **dedup},
        embedding=listed,
        split=splits,
    )


def split(name: str, rule: str, does: str = "sanitize") -> dict[str, Any]:
    return {"name": name, "seed": 1, does: [rule], "train": {"from": "train"}, "test": {"from": "test"}}


def splits_by(rules: Mapping[str, str], does: str) -> list[dict[str, Any]]:
    return [split(f"{does}{at}", rule, does) for at, rule in enumerate(rules.values())]


def made(wanted: Recipe) -> Built:
    return build(wanted, engine=LocalEngine(1))


def rows(root: Path) -> pl.DataFrame:
    return Lake(root).scan("splits").collect()


@pytest.mark.parametrize(
    ("clusters", "stricter"),
    [("components", STRICTER), ("stars", {rule: STRICTER[rule] for rule in ("hamming:8", "embedding:v:0.8")})],
    ids=["components", "stars"],
)
def test_a_split_is_the_same_as_if_the_threshold_were_stored(
    sources: Path, tmp_path: Path, clusters: str, stricter: dict[str, str]
) -> None:
    parts = [*splits_by(stricter, "sanitize"), *splits_by(stricter, "groups")]
    loose, strict = tmp_path / "loose", tmp_path / "strict"
    wanted = asked(sources, loose, list(stricter), parts, clusters=clusters)
    made(wanted)
    made(asked(sources, strict, list(stricter.values()), parts, clusters=clusters))
    assert rows(loose).equals(rows(strict))
    dropped = dict(
        rows(loose).drop_nulls("dropped_by").group_by("split_name").agg(pl.col("dropped_by").unique()).rows()
    )
    assert {name: found for name, found in dropped.items() if name.startswith("sanitize")} == {
        f"sanitize{at}": [rule] for at, rule in enumerate(stricter.values())
    }
    for lake in (loose, strict) if clusters == "components" else (loose,):
        assert [fault for check in verify(str(lake)) for fault in check.faults] == []
    for stored, rule in stricter.items():
        questions = ReviewQuery(rule), ReviewQuery(rule, "sanitize0", between=True), ReviewQuery(rule, best="d/test")
        # Pairs do not depend on how clusters are made of them.
        for question in questions if clusters == "components" else ():
            ours, theirs = (review_pairs(Lake(str(lake)), question) for lake in (loose, strict))
            assert ours.shown.drop("cluster_id").equals(theirs.shown.drop("cluster_id"))
            assert (ours.headline, ours.pairs, ours.stored) == (theirs.headline, theirs.pairs, stored)
        one, other = (review_clusters(Lake(str(lake)), ReviewQuery(rule)) for lake in (loose, strict))
        assert one.shown.equals(other.shown)
        assert one.sizes.equals(other.sizes)
    before = versions(str(loose))
    assert made(wanted).done == ()
    assert versions(str(loose)) == before


@pytest.mark.parametrize(("stored", "first", "second"), [("photo:0.5", "0.6", "0.7"), ("hamming:9", "7", "2")])
def test_another_threshold_draws_the_split_again_and_nothing_else(
    sources: Path, tmp_path: Path, stored: str, first: str, second: str
) -> None:
    family = stored.partition(":")[0]
    root = tmp_path / "lake"
    other = split("other", "exact")
    made(asked(sources, root, ["exact", stored], [split("main", f"{family}:{first}"), other]))
    before, kept = versions(str(root)), rows(root).filter(split_name="other")
    stale = asked(sources, root, ["exact", stored], [split("main", f"{family}:{second}"), other])
    assert [(item.stage, item.unit) for item in plan(stale)] == [("splits", "main")]
    assert [(item.stage, item.unit) for item in made(stale).done] == [("splits", "main")]
    assert {name: versions(str(root))[name] for name in DERIVED} == {name: before[name] for name in DERIVED}
    assert set(read_meta(str(root), "clusters").units) == set(read_meta(str(root), "pairs").units) | {"exact"}
    assert set(rows(root).filter(split_name="main")["dropped_by"].drop_nulls()) == {f"{family}:{second}"}
    assert rows(root).filter(split_name="other").equals(kept)
    assert [fault for check in verify(str(root)) for fault in check.faults] == []


def test_new_images_are_sanitized_by_the_threshold_that_the_split_names(tmp_path: Path) -> None:
    base, root = tmp_path / "sources", tmp_path / "lake"
    for role in ("train", "test"):
        as_folder(base / role, {f"A/{role}.png": encoded(pictures(1, seed=len(role))[0])})
    parts = [split("main", "cosine:0.99")]
    made(asked(base, root, ["cosine:0.9"], parts))
    assert rows(root)["kept"].all()
    picture = pictures(1, seed=5)[0]
    near = np.where(np.arange(28) < 1, 255 - picture, picture).astype(np.uint8)
    as_folder(base / "train", {"A/new.png": encoded(picture), "A/near.png": encoded(near)})
    as_folder(base / "test", {"A/copy.png": encoded(picture), "A/other.png": encoded(near)})
    made(asked(base, root, ["cosine:0.9"], parts))
    dropped = rows(root).filter(~pl.col("kept"))
    assert dropped["dropped_by"].to_list() == ["cosine:0.99"] * 2
    assert [fault for check in verify(str(root)) for fault in check.faults] == []


def test_verify_finds_a_split_that_leaks_by_a_threshold_that_is_not_stored(sources: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "lake")
    made(asked(sources, Path(root), ["photo:0.5"], [split("main", "photo:0.7")]))
    leaking = rows(Path(root)).with_columns(pl.lit(value=True).alias("kept")).drop("split_name")
    part = write_part(root, "splits", {"split_name": "main"}, leaking.to_arrow().cast(TABLES["splits"].file_schema))
    commit(root, "splits", [part] if part else [], lambda _: True, Metadata("splits", read_meta(root, "splits").units))
    publish(root, "", "leak", read_meta(root, "releases").units["recipe"])
    faults = [str(fault) for check in verify(root) for fault in check.faults]
    assert any("clusters of rule photo:0.7 have kept rows in two roles" in fault for fault in faults)


@pytest.mark.parametrize(
    ("rules", "rule", "message"),
    [
        (["photo:0.6"], "photo:0.5", "sanitizes by 'photo:0.5', which is looser than 'photo:0.6' of dedup.rules"),
        (["hamming:6", "hamming:2"], "hamming:7", "looser than 'hamming:6' of dedup.rules"),
        (["embedding:v:0.9"], "embedding:v:0.8", "looser than 'embedding:v:0.9'"),
        (["hamming:6"], "hamming:4:dhash", "which is not among dedup.rules ['hamming:6']"),
        (["embedding:v:0.9"], "embedding:w:0.95", "which is not among dedup.rules"),
        (["photo:0.6"], "photo:nan", "whose threshold no score can reach"),
        (["photo:0.6"], "photo:1.5", "'photo:1.5', whose threshold no score can reach"),
        (["hamming:6"], "hamming:-1", "'hamming:-1', whose threshold no score can reach"),
    ],
)
def test_a_threshold_that_no_stored_pairs_answer_is_refused_before_anything_is_read(
    sources: Path, tmp_path: Path, rules: list[str], rule: str, message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        made(asked(sources, tmp_path / "lake", rules, [split("main", rule)]))
    assert message in str(caught.value)
    assert not (tmp_path / "lake" / "images").exists()
