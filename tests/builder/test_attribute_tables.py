"""The table attributes in a lake: joined by path, id or digest, kept up to date, and nothing dropped in silence."""

import os
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from examples import slow_but
from lakes import read_meta, versions
from making import as_folder, files_of, recipe

from pipeline.builder.build import Built, build, plan
from pipeline.engines.local import LocalEngine
from pipeline.errors import SourceError
from pipeline.export import export
from pipeline.lake_handle import Lake
from pipeline.verify import verify

CLOCK = count(10**18, 10**9)
FACTS = {"uri": "facts.csv"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Write 12 images of four patients, and a table of them."""
    files = files_of(12)
    as_folder(
        tmp_path / "a", {f"p{number % 4:02d}_{name[2:]}": data for number, (name, data) in enumerate(files.items())}
    )
    write(tmp_path, *(f"{name},{name[:3]},{40 + number}" for number, name in enumerate(paths(tmp_path))))
    return tmp_path


def paths(base: Path) -> list[str]:
    return sorted(file.name for file in (base / "a").iterdir())


def write(base: Path, *lines: str, header: str = "path,patient,age", file: str = "facts.csv") -> None:
    (base / file).write_text("\n".join([header, *lines]))
    now = next(CLOCK)
    os.utime(base / file, ns=(now, now))


def asked(base: Path, *attributes: dict[str, Any], **parts: Any) -> Any:
    return recipe(base, {"uri": "a"}, attributes=list(attributes), decode={"mode": "L"}, **parts)


def make(base: Path, *attributes: dict[str, Any], prune: bool = False, **parts: Any) -> Built:
    return build(asked(base, *attributes, **parts), engine=LocalEngine(1), prune=prune)


def stages(built: Built) -> list[tuple[str, str]]:
    return [(item.stage, item.unit) for item in built.done]


def wide(built: Built, columns: str = "*") -> list[tuple[Any, ...]]:
    joined = f"SELECT {columns} FROM images JOIN attributes_wide USING (image_id) ORDER BY path"
    return Lake(built.root).sql(joined).fetchall()


def sound(built: Built) -> bool:
    return not any(check.faults for check in verify(built.root))


def test_a_table_becomes_typed_columns_in_sql_and_a_second_build_does_nothing(base: Path) -> None:
    built = make(base, FACTS)
    assert wide(built, "path, patient, age") == [(name, name[:3], 40 + k) for k, name in enumerate(paths(base))]
    rows = Lake(built.root).scan("attributes").collect()
    assert rows.columns == ["image_id", "name", "value", "type", "dataset"]
    assert rows.group_by("name", "type", "dataset").len().sort("name").rows() == [
        ("age", "int", "d", 12),
        ("patient", "text", "d", 12),
    ]
    assert (sound(built), built.notes) == (True, ())
    before = versions(built.root)
    assert plan(asked(base, FACTS)) == []
    assert make(base, FACTS).done == ()
    assert versions(built.root) == before


def test_a_plan_of_a_new_lake_lists_the_attributes(base: Path) -> None:
    assert [
        (item.stage, item.unit, item.reason) for item in plan(asked(base, FACTS)) if item.stage == "attributes"
    ] == [("attributes", "d", "new")]


def test_a_pattern_reads_the_path(base: Path) -> None:
    built = make(base, {"patterns": {"patient": r"(p\d+)_", "number": r"_(\d+)\."}})
    assert {row[0] for row in wide(built, "patient")} == {"p00", "p01", "p02", "p03"}
    assert sound(built)


@pytest.mark.parametrize("key", ["image_id", "file_digest"])
def test_images_are_found_by_id_or_digest(base: Path, key: str) -> None:
    built = make(base)
    images = Lake(built.root).scan("images").select("path", pl.col(key).bin.encode("hex")).collect()
    write(base, *(f"{value.upper()},{path}" for path, value in images.rows()), header=f"{key},name")
    built = make(base, FACTS)
    assert all(path == name for path, name in wide(built, "path, name"))


def test_unknown_repeated_missing_and_invalid_rows_are_counted_and_listed(base: Path) -> None:
    one, two, *rest = paths(base)
    rows = [f"{one},p1,5", f"{one},p2,5", f"{two},p1,old", *(f"{name},p3,6" for name in rest[:-1])]
    write(base, "gone.png,p9,1", ",p8,1", *rows)
    built = make(base, {**FACTS, "types": {"age": "int"}})
    assert list(built.notes) == [
        "attributes facts.csv: 2 of 14 rows name no image by their path: gone.png and 1 more",
        f"attributes facts.csv: several rows name 1 path: {one}",
        f"attributes facts.csv: 1 of 12 images are in no row: {rest[-1]}",
        "attributes facts.csv: 1 value of age ignored, because not of the type that the recipe requires",
        "attribute patient: 1 image with several values, so null in attributes_wide",
    ]
    assert [value for (value,) in wide(built, "patient")] == [None, "p1", *(["p3"] * 9)]
    both = Lake(built.root).sql("SELECT value FROM attributes WHERE name = 'patient' ORDER BY value LIMIT 2")
    assert both.fetchall() == [("p1",), ("p1",)]
    assert sound(built)


def test_a_changed_file_new_images_and_gone_images_are_seen(base: Path) -> None:
    built = make(base, FACTS)
    write(base, *(f"{name},x,1" for name in paths(base)))
    assert [item.reason for item in plan(asked(base, FACTS))] == ["its input changed"]
    built = make(base, FACTS)
    assert stages(built) == [("attributes", "d")]
    assert {row[0] for row in wide(built, "patient")} == {"x"}
    (base / "a" / paths(base)[0]).unlink()
    built = make(base, FACTS)
    assert ("attributes", "d") in stages(built)
    assert Lake(built.root).scan("attributes").collect()["image_id"].n_unique() == 11
    assert sound(built)


def test_attributes_stay_until_they_are_pruned(base: Path) -> None:
    make(base, FACTS)
    assert make(base).done != ()
    assert len(wide(make(base))) == 12
    built = make(base, prune=True)
    assert ("attributes", "d") in stages(built)
    assert wide(built) == []
    assert sound(built)


def test_the_attributes_of_a_dataset_replace_those_before(base: Path) -> None:
    make(base, FACTS)
    built = make(base, {"patterns": {"patient": "(p)"}})
    assert set(wide(built, "patient")) == {("p",)}
    assert Lake(built.root).sql("SELECT * FROM attributes_wide").columns == ["image_id", "patient"]


def test_several_files_and_types_of_one_attribute(base: Path) -> None:
    names = paths(base)
    write(base, *(f"{name},{k}" for k, name in enumerate(names[:6])), header="path,x")
    write(base, *(f"{name},{k}.5" for k, name in enumerate(names[6:])), header="path,x", file="more.csv")
    built = make(base, FACTS, {"uri": "more.csv"})
    assert [row[0] for row in wide(built, "x")] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert sound(built)


def test_a_path_of_several_splits_needs_the_key_split(base: Path) -> None:
    both = ({"uri": "a"}, {"uri": "b", "split": "test"})
    (base / "b").mkdir()
    name = paths(base)[0]
    (base / "b" / name).write_bytes((base / "a" / name).read_bytes())
    with pytest.raises(SourceError, match=f"has path '{name}', but splits test, train of dataset 'd'"):
        build(recipe(base, *both, attributes=[FACTS]), engine=LocalEngine(1))
    built = build(recipe(base, *both, attributes=[{**FACTS, "split": "train"}]), engine=LocalEngine(1))
    assert len(wide(built)) == 12


def test_unknown_datasets_and_missing_files_are_named(base: Path) -> None:
    with pytest.raises(SourceError, match=r"the lake has no dataset 'e'\. Datasets: d\."):
        make(base, {**FACTS, "dataset": "e"})
    with pytest.raises(SourceError, match=r"gone\.csv does not exist"):
        make(base, {"uri": "gone.csv"})


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_columns_of_the_table_of_a_source_are_read_by_the_number_of_the_row(base: Path, form: str) -> None:
    if form == "parquet":
        images = [(base / "a" / name).read_bytes() for name in paths(base)]
        pl.DataFrame({"image": images, "ward": [f"w{k}" for k in range(12)]}).write_parquet(base / "t.parquet")
    else:
        pixels = pl.DataFrame({f"pixel{k}": [k % 256 + row for row in range(12)] for k in range(16)})
        pixels.with_columns(ward=pl.Series([f"w{k}" for k in range(12)])).write_csv(base / "t.csv")
    facts = {"uri": f"t.{form}", "columns": ["ward"]}
    labels = {"labels": "ward"} if form == "csv" else {"labels": ""}
    table = recipe(base, {"uri": f"t.{form}", **labels}, attributes=[facts], decode={"mode": "L"})
    built = build(table, engine=LocalEngine(1))
    assert wide(built, "path, ward") == sorted((str(k), f"w{k}") for k in range(12))
    assert built.notes == ()


HOSTILE = ["\x1b[31mred", 'quo"te', "semi;colon", "'; DROP TABLE images; --", "Path", "IMAGE_ID", "a/../b", "ünï", " "]


@pytest.fixture
def hostile(base: Path) -> Built:
    rows = {"path": paths(base), **{name: [f"<script>{name}\x07"] * 12 for name in HOSTILE if name.strip()}}
    pl.DataFrame({"path": rows["path"], **{k: v for k, v in rows.items() if k != "path"}}).write_parquet(
        base / "facts.parquet"
    )
    return make(base, {"uri": "facts.parquet"})


def test_hostile_names_are_columns_like_others(hostile: Built) -> None:
    relation = Lake(hostile.root).sql("SELECT * FROM attributes_wide")
    assert len(relation.columns) == len({name.lower() for name in relation.columns})
    assert len(relation.fetchall()) == 12
    assert sound(hostile)


def test_tables_do_not_depend_on_the_order_of_rows(base: Path) -> None:
    first = Lake(make(base, FACTS).root).scan("attributes").collect()
    digest = read_meta(str(base / "lake"), "attributes").units["d"]["names"]["age"]["digest"]
    header, *lines = (base / "facts.csv").read_text().splitlines()
    write(base, *reversed(lines), header=header)
    built = make(base, FACTS)
    assert Lake(built.root).scan("attributes").collect().equals(first)
    assert read_meta(built.root, "attributes").units["d"]["names"]["age"]["digest"] == digest


def test_windows_paths_and_paths_from_the_current_folder_are_found(base: Path) -> None:
    one, two, *rest = paths(base)
    deep = base / "a" / "deep"
    deep.mkdir()
    (base / "a" / two).rename(deep / two)
    write(base, f"./{one},x,1", f"deep\\{two},x,1", *(f"{name},x,1" for name in rest))
    assert make(base, FACTS).notes == ()


def test_columns_without_values_and_markers_of_no_value_are_listed(base: Path) -> None:
    write(base, *(f"{name},NA," for name in paths(base)))
    assert list(make(base, FACTS).notes) == [
        "attributes facts.csv: age has no value",
        "attributes facts.csv: 12 values of patient such as NA, kept as text: leave it empty if it means no value",
    ]


def test_a_pattern_whose_values_have_another_type_is_not_reported_as_no_match(base: Path) -> None:
    built = make(base, {"patterns": {"patient": r"(p\d+)_"}, "types": {"patient": "int"}})
    (note,) = built.notes
    assert note.endswith("12 values of patient ignored, because not of the type that the recipe requires")


def test_paths_of_several_datasets_are_counted(base: Path) -> None:
    two = paths(base)[1]
    as_folder(base / "b", {two: (base / "a" / two).read_bytes(), "other.png": files_of(1)["A/00000.png"]})
    sources = [{"uri": "a"}, {"uri": "b", "dataset": "e"}]
    spec = recipe(base, *sources, attributes=[FACTS], decode={"mode": "L"})
    built = build(spec, engine=LocalEngine(1))
    note = "attributes facts.csv: images of several datasets have 1 path of the file and get the values; "
    assert f'{note}dataset = "..." chooses one dataset: {two}' in built.notes
    chosen = recipe(base, *sources, attributes=[{**FACTS, "dataset": "d"}], decode={"mode": "L"})
    assert build(chosen, engine=LocalEngine(1), prune=True).notes == ()


def test_a_missing_file_is_found_before_images_are_decoded(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (base / "facts.csv").unlink()
    monkeypatch.setattr("pipeline.builder.build.decode_sources", None)
    with pytest.raises(SourceError, match=r"facts\.csv does not exist"):
        make(base, FACTS)


def test_dates_of_one_dataset_and_times_of_another_are_times(base: Path) -> None:
    as_folder(base / "b", {"other.png": files_of(1)["A/00000.png"]})
    write(base, *(f"{name},2024-03-05" for name in paths(base)), header="path,seen")
    write(base, "other.png,2024-03-06T10:30", header="path,seen", file="times.csv")
    parts = [{"uri": "facts.csv", "dataset": "d"}, {"uri": "times.csv", "dataset": "e"}]
    spec = recipe(base, {"uri": "a"}, {"uri": "b", "dataset": "e"}, attributes=parts, decode={"mode": "L"})
    built = build(spec, engine=LocalEngine(1))
    rows = Lake(built.root).sql("SELECT DISTINCT seen FROM attributes_wide ORDER BY seen").fetchall()
    assert [value.isoformat() for (value,) in rows] == ["2024-03-05T00:00:00", "2024-03-06T10:30:00"]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("originals", slow_but(["keep"], ["keep", "none"]))
@pytest.mark.parametrize("source", ["a", "files"])
def test_the_manifest_of_an_export_joins_to_the_exported_files_and_to_their_source(
    base: Path, originals: str, source: str
) -> None:
    """Ids differ in another dataset, and digests where the files were encoded again."""
    rows = [f"{name},{name[:3]},{40 + k}" for k, name in enumerate(paths(base))]
    write(base, *rows, "p00_00000.png,p9,1")
    split = {"name": "main", "train": {"from": "train"}}
    decode = {"originals": originals, "mode": "L"}
    made = build(recipe(base, {"uri": "a"}, attributes=[FACTS], split=[split], decode=decode), engine=LocalEngine(1))
    export(made.root, "main", base / "files", "imagefolder")
    again = recipe(
        base,
        {"uri": source, "dataset": "other"},
        attributes=[{"uri": "files/manifest.csv", "columns": ["patient", "age"]}],
        decode=decode,
        lake={"root": "again"},
    )
    built = build(again, engine=LocalEngine(1))
    assert [note for note in built.notes if "name no image" in note] == []
    values = "SELECT name, value, type FROM attributes ORDER BY ALL"
    assert Lake(built.root).sql(values).fetchall() == Lake(made.root).sql(values).fetchall()


def test_a_folder_or_pattern_of_parquet_files_is_one_table(base: Path) -> None:
    (base / "facts").mkdir()
    table = pl.read_csv(base / "facts.csv")
    table[:5].write_parquet(base / "facts" / "1.parquet")
    table[5:].with_columns(pl.col("age").cast(pl.Float64), ward=pl.lit("w")).write_parquet(base / "facts" / "2.parquet")
    (base / "facts" / "_SUCCESS").touch()
    wanted = [(name, name[:3], 40.0 + k, None if k < 5 else "w") for k, name in enumerate(paths(base))]
    for uri in ("facts", "facts/*.parquet"):
        built = make(base, {"uri": uri})
        assert wide(built, "path, patient, age, ward") == wanted
        assert plan(asked(base, {"uri": uri})) == []
    table[:1].with_columns(patient=pl.lit("new")).write_parquet(base / "facts" / "3.parquet")
    assert [item.unit for item in plan(asked(base, {"uri": "facts/*.parquet"}))] == ["d"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ((), "is a folder without Parquet files"),
        (("1.parquet", "2.csv"), "does not exist"),
        (("ward=1/1.parquet", "ward=2/2.parquet"), "columns in names of folders, such as ward=1, are not read"),
    ],
)
def test_folders_that_are_no_table_are_refused(base: Path, files: tuple[str, ...], said: str) -> None:
    for name in files:
        (base / "facts" / name).parent.mkdir(parents=True, exist_ok=True)
        pl.read_csv(base / "facts.csv").write_parquet(base / "facts" / name)
    (base / "facts").mkdir(exist_ok=True)
    with pytest.raises(SourceError, match=said):
        make(base, {"uri": "facts/*.csv.gz" if "2.csv" in files else "facts"})


def test_paths_in_another_unicode_form_are_joined_and_counted(tmp_path: Path) -> None:
    names = ["caf\u00e9.png", "cafe\u0301.png", "nai\u0308f.png", "plain.png"]
    as_folder(tmp_path / "a", dict(zip(names, files_of(4).values(), strict=True)))
    # The third is in form C here. "caf\u00e9" is there in both forms, so that each is joined to its own.
    write(tmp_path, *(f"{name},{k},1" for k, name in enumerate([*names[:2], "na\u00eff.png", names[3]])))
    built = make(tmp_path, {**FACTS, "types": {"patient": "int"}})
    assert dict(wide(built, "path, patient")) == {name: k for k, name in enumerate(names)}
    assert list(built.notes) == ["attributes facts.csv: 1 path in another Unicode form than in the lake, joined anyway"]
