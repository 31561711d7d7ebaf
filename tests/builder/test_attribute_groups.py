"""Splits that keep the images of a patient, or of any other attribute, in one role."""

import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from lakes import commit, files, read_meta, versions, write_part
from making import as_folder, files_of, recipe

from pipeline.builder.build import Built, build, plan
from pipeline.engines.local import LocalEngine
from pipeline.errors import RecipeError, SplitError
from pipeline.lake_handle import Lake
from pipeline.repair import repair
from pipeline.verify import verify

PATIENT = {"patterns": {"patient": r"(p\d+)_"}}
SPLIT: dict[str, Any] = {
    "name": "main",
    "groups": ["attr:patient", "exact"],
    "train": {"from": "train", "share": 0.6},
    "test": {"from": "train", "share": 0.4},
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Write 60 images of 20 patients; p00 and p01 share a picture, and four images have no patient."""
    named = {
        f"{name[0]}/p{number % 20:02d}_{name[2:]}": data for number, (name, data) in enumerate(files_of(60).items())
    }
    first, second = min(named), next(name for name in sorted(named) if "p01" in name)
    alone = {f"A/x{number}.png": data for number, data in enumerate(files_of(4, seed=1).values())}
    as_folder(tmp_path / "a", {**named, second: named[first], **alone})
    return tmp_path


def asked(base: Path, *attributes: dict[str, Any], **split: Any) -> Any:
    parts = {"attributes": list(attributes or (PATIENT,)), "split": [{**SPLIT, **split}], "decode": {"mode": "L"}}
    return recipe(base, {"uri": "a"}, **parts)


def make(base: Path, *attributes: dict[str, Any], **split: Any) -> Built:
    return build(asked(base, *attributes, **split), engine=LocalEngine(1))


def roles_of_patients(built: Built) -> list[int]:
    query = "SELECT count(DISTINCT role) FROM splits JOIN attributes_wide USING (image_id) WHERE kept GROUP BY patient"
    return [count for (count,) in Lake(built.root).sql(query).fetchall()]


def faults(built: Built) -> list[str]:
    return [fault.text for check in verify(built.root) for fault in check.faults]


def test_no_patient_is_in_two_roles_and_images_without_one_are_alone(base: Path) -> None:
    built = make(base)
    assert roles_of_patients(built) == [1] * 20
    (reason,) = [item.reason for item in built.done if item.stage == "splits"]
    assert "4 images without patient: each is a group of its own" in reason
    assert "attribute patient: 1 cluster of exact (2 images) with several values" in built.notes
    images = Lake(built.root).scan("images").select("image_id", "path", "label")
    rows = Lake(built.root).scan("splits").join(images, on="image_id").collect()
    shared = rows.filter(pl.col("path").str.contains("p00|p01"))
    assert shared["role"].n_unique() == 1
    assert rows["kept"].all()
    shares = rows.group_by("label").agg(train=(pl.col("role") == "train").mean())["train"]
    assert all(abs(share - 0.6) < 0.1 for share in shares)
    assert faults(built) == []
    before = versions(built.root)
    assert plan(asked(base)) == []
    assert make(base).done == ()
    assert versions(built.root) == before


def test_a_patient_with_new_images_keeps_its_role(base: Path) -> None:
    make(base)
    before = roles(base)
    as_folder(
        base / "a", {f"B/p{number:02d}_new.png": data for number, data in enumerate(files_of(5, seed=7).values())}
    )
    built = make(base)
    assert {path: role for path, role in roles(base).items() if path in before} == before
    assert roles_of_patients(built) == [1] * 20
    assert faults(built) == []


def roles(base: Path) -> dict[str, str]:
    images = Lake(base / "lake").scan("images").select("image_id", "path")
    joined = Lake(base / "lake").scan("splits").join(images, on="image_id").select("path", "role")
    return dict(joined.collect().rows())


def test_other_attributes_do_not_draw_the_split_again(base: Path) -> None:
    make(base)
    built = make(base, PATIENT, {"patterns": {"number": r"_(\d+)"}})
    assert [item.stage for item in built.done] == ["attributes"]
    built = make(base, {"patterns": {"patient": r"(p\d)"}})
    assert [item.stage for item in built.done] == ["attributes", "splits"]


def test_an_image_of_two_patients_links_them(base: Path) -> None:
    paths = sorted(file.relative_to(base / "a").as_posix() for file in (base / "a").rglob("*.png"))
    both = next(path for path in paths if "p07" in path)
    (base / "more.csv").write_text(f"path,patient\n{both},p08\n")
    built = make(base, PATIENT, {"uri": "more.csv"})
    linked = {role for path, role in roles(base).items() if "p07" in path or "p08" in path}
    assert len(linked) == 1
    assert faults(built) == []


def test_verify_finds_a_patient_in_two_roles(base: Path) -> None:
    built = make(base)
    rows = Lake(built.root).scan("splits").collect()
    first = rows.with_row_index().filter(role="train").head(1)["index"][0]
    changed = rows.with_row_index().with_columns(role=pl.when(index=first).then(pl.lit("test")).otherwise("role"))
    table = changed.drop("index", "split_name").to_arrow()
    stored = read_meta(built.root, "splits")
    part = write_part(built.root, "splits", {"split_name": "main"}, table.cast(files_schema()))
    assert part is not None
    assert files(built.root, "splits")
    commit(built.root, "splits", [part], lambda _: True, stored)
    build(asked(base, PATIENT, {"patterns": {"number": r"_(\d+)"}}), engine=LocalEngine(1))
    (text,) = (text for text in faults(built) if "attr:patient" in text)
    (patient,) = re.findall("1 values of attr:patient have kept rows in two roles, such as (p[0-9]+): ", text)
    assert re.search(rf": \S*{patient}\S* \(test\) and \S*{patient}\S* \(train\)", text)


def files_schema() -> Any:
    import schemas  # noqa: PLC0415 - only here

    return schemas.TABLES["splits"].file_schema


def test_policies_within_a_cluster_do_not_apply_to_patients(base: Path) -> None:
    built = make(base, groups=["exact", "attr:patient"], within="first")
    rows = Lake(built.root).scan("splits").collect()
    assert rows.filter(~pl.col("kept"))["dropped_by"].unique().to_list() == ["exact"]
    assert len(rows.filter("kept")) == 63


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"sanitize": ["attr:patient"]}, r'write groups = \["attr:patient"\]'),
        ({"groups": ["attr:"]}, "names no attribute"),
    ],
)
def test_faults_of_a_recipe(base: Path, split: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        asked(base, **split)


def test_an_attribute_that_no_image_has_is_named(base: Path) -> None:
    with pytest.raises(SplitError, match=r"split 'main' needs the attribute 'ward', which no image has.*patient"):
        make(base, groups=["attr:ward"])


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["table", "rows"])
def test_a_split_stays_while_its_attributes_cannot_be_repaired(base: Path, lost: str) -> None:
    paths = sorted(file.relative_to(base / "a").as_posix() for file in (base / "a").rglob("*p*.png"))
    facts = "\n".join(["path,patient", *(f"{path},{Path(path).name[:3]}" for path in paths)])
    (base / "facts.csv").write_text(facts)
    spec = asked(base, {"uri": "facts.csv"})
    built = build(spec, engine=LocalEngine(1))
    before = roles(base)
    (base / "facts.csv").rename(base / "away.csv")
    if lost == "table":
        shutil.rmtree(base / "lake" / "attributes")
    else:
        for table in ("attributes", "splits"):
            Path(built.root, table, files(built.root, table)[0].path).unlink()
    stays = repair(spec, engine=LocalEngine(1)).still_damaged
    assert [line.partition(":")[0] for line in stays] == {
        "table": ["attributes of d", "releases 1 are lost"],
        "rows": ["attributes of d", "attributes of d", "splits of main"],
    }[lost]
    if lost == "table":
        assert roles(base) == before
        assert faults(built) == []
    (base / "away.csv").rename(base / "facts.csv")
    assert repair(spec, engine=LocalEngine(1)).still_damaged == ()
    assert (roles(base), roles_of_patients(built), faults(built)) == (before, [1] * 20, [])
