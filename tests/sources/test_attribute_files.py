"""Files and patterns of attributes: columns, types, keys, and what is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import RecipeError, SourceError
from pipeline.recipe import AttributesPart, parse_recipe
from pipeline.sources.attribute_types import TYPES, as_text, cast, common_type, from_text
from pipeline.sources.attributes import Attributes, match_patterns
from pipeline.sources.attributes import read_attributes as read_file


def read(file: Path, **part: Any) -> Attributes:
    return read_file(AttributesPart(uri=file.name, **part), file)


def csv(tmp_path: Path, *lines: str, name: str = "facts.csv") -> Path:
    (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / name


def column(found: Attributes, name: str) -> list[Any]:
    return found.rows[name].to_list()


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "-20", ""], "int", [1, -20, None]),
        (["1", "2.5", "1e3"], "float", [1.0, 2.5, 1000.0]),
        (["007", "12"], "text", ["007", "12"]),
        (["true", "False"], "bool", [True, False]),
        (["2026-01-31", "2025-02-28"], "date", None),
        (["2026-02-31", "2025-02-28"], "text", ["2026-02-31", "2025-02-28"]),
        (["2026:01:02 03:04:05", "2026-01-02T03:04:05.5"], "datetime", None),
        (["2026-01-02", "2026-01-02 03:04"], "datetime", None),
        (["2026-01-02T03:04:05Z", "2026-01-02 03:04:05+02:00"], "datetime", None),
        (["1", "x"], "text", ["1", "x"]),
        (["99999999999999999999", "1"], "text", ["99999999999999999999", "1"]),
        ([" a ", "e\u0301"], "text", ["a", "\u00e9"]),
    ],
)
def test_the_type_of_a_csv_column_follows_from_its_values(
    tmp_path: Path, values: list[str], kind: str, expected: list[Any] | None
) -> None:
    found = read(csv(tmp_path, "path,x", *(f'{number}.png,"{value}"' for number, value in enumerate(values))))
    assert found.rows["x"].dtype == TYPES[kind]
    assert found.rows["x"].null_count() == values.count("")
    if expected is not None:
        assert column(found, "x") == expected


def test_times_with_an_offset_become_utc(tmp_path: Path) -> None:
    found = read(
        csv(tmp_path, "path,t", "a,2026-01-02T03:04:05+02:00", "b,2026-01-02 01:04:05", "c,2026:01:02 01:04:05")
    )
    assert set(as_text(found.rows["t"])) == {"2026-01-02T01:04:05"}


def test_a_required_type_replaces_the_inferred_one_and_counts_what_it_cannot_read(tmp_path: Path) -> None:
    found = read(csv(tmp_path, "path,age,ward", "a,61,7", "b,unknown,8"), types={"age": "int", "ward": "text"})
    assert (column(found, "age"), column(found, "ward"), found.invalid) == ([61, None], ["7", "8"], {"age": 1})


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_quotes_and_a_byte_order_mark(tmp_path: Path, separator: str) -> None:
    lines = separator.join(["File Name", "Patient"]), separator.join(['"a, b;|.png"', '"p ""1"""'])
    found = read(csv(tmp_path, "\ufeff" + lines[0], lines[1]))
    assert (column(found, "key"), column(found, "Patient")) == (["a, b;|.png"], ['p "1"'])


def test_parquet_types_lists_and_columns_that_are_no_attributes(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image_id": pa.array([b"x" * 16, b"y" * 16]),
            "image": pa.array([b"png", b"png"]),
            "tags": pa.array([["b", "a", None], []]),
            "age": pa.array([1.0, float("nan")]),
            "code": pa.array(["7", "8"]),
            "big": pa.array([2**64 - 1, 1], pa.uint64()),
            "box": pa.array([{"x": 1}, {"x": 2}]),
        }
    )
    pq.write_table(table, tmp_path / "facts.parquet")
    found = read(tmp_path / "facts.parquet")
    assert (found.key, column(found, "key")) == ("image_id", [b"x" * 16, b"y" * 16])
    assert column(found, "tags") in ([["b", "a"], []], [["b", "a"], None])
    assert (column(found, "age"), column(found, "code")) == ([1.0, None], ["7", "8"])
    assert column(found, "big") == [str(2**64 - 1), "1"]
    assert column(found, "box") == ['{"x":1}', '{"x":2}']
    assert "image" not in found.rows.columns


def test_json_lines(tmp_path: Path) -> None:
    rows = [{"path": "a", "n": 1, "tags": ["x", "y"]}, {"path": "b", "n": 2.5}]
    found = read(csv(tmp_path, *map(json.dumps, rows), name="facts.jsonl"))
    assert (column(found, "n"), column(found, "tags")[0]) == ([1.0, 2.5], ["x", "y"])


def test_digests_and_ids_are_hexadecimal_in_text_files(tmp_path: Path) -> None:
    found = read(csv(tmp_path, "file_digest,x", f"{'AB' * 32},1", "short,2"))
    assert (found.key, column(found, "key")) == ("file_digest", [b"\xab" * 32, None])


def test_coco_annotations_give_each_image_the_names_of_its_categories(tmp_path: Path) -> None:
    coco = {
        "info": {"year": 2026},
        "images": [{"id": 1, "file_name": "a.jpg", "width": 5}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [{"image_id": 1, "category_id": k, "bbox": [0, 0, 1, 1], "id": k} for k in (9, 7, 9)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 9, "name": "cat"}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(coco))
    found = read(tmp_path / "annotations.json")
    assert (column(found, "key"), column(found, "labels")[0]) == (["a.jpg", "b.jpg"], ["cat", "dog"])
    assert not column(found, "labels")[1]
    (tmp_path / "annotations.json").write_text(json.dumps({**coco, "categories": []}))
    with pytest.raises(SourceError, match="annotations are of a category id that categories does not list: 7, 9"):
        read(tmp_path / "annotations.json")
    (tmp_path / "annotations.json").write_text("[1, 2]")
    with pytest.raises(SourceError, match=r"annotations\.json cannot be read"):
        read(tmp_path / "annotations.json")


def test_a_row_without_an_object_has_no_value(tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text('{"path": "a", "meta": {"x": 1}}\n{"path": "b"}\n', encoding="utf-8")
    assert column(read(tmp_path / "facts.jsonl"), "meta") == ['{"x":1}', None]


def test_label_columns_become_a_list_of_labels(tmp_path: Path) -> None:
    file = csv(tmp_path, "path,cat,dog,patient", "a,1,1,p1", "b,0,1,p2", "c,0,,p3")
    found = read(file, labels=["cat", "dog"])
    assert [names or [] for names in column(found, "labels")] == [["cat", "dog"], ["dog"], []]
    assert found.rows.columns == ["key", "patient", "labels"]
    assert read(file, labels=["cat", "dog"], columns=["dog"]).rows.columns == ["key", "labels"]
    with pytest.raises(SourceError, match="has a column 'labels', but labels = "):
        read(csv(tmp_path, "path,cat,labels", "a,1,x"), labels=["cat"])
    with pytest.raises(SourceError, match="has 2 values in its column of labels 'cat' that are .* such as '2'"):
        read(csv(tmp_path, "path,cat", "a,2", "b,yes", "c,1"), labels=["cat"])


def test_minus_one_is_no_label_and_counted_where_zero_means_that(tmp_path: Path) -> None:
    celeba = read(csv(tmp_path, "image_id,Smiling,Male", "1.jpg,1,-1", "2.jpg,-1,-1"), labels=["Smiling", "Male"])
    assert (celeba.key, [names or [] for names in column(celeba, "labels")]) == ("path", [["Smiling"], []])
    assert celeba.uncertain == {}
    chexpert = read(csv(tmp_path, "Path,Edema,Cyst", "a,1.0,-1.0", "b,,0.0", "c,-1.0,1.0"), labels=["Edema", "Cyst"])
    assert [names or [] for names in column(chexpert, "labels")] == [["Edema"], [], ["Cyst"]]
    assert chexpert.uncertain == {"Edema": 1, "Cyst": 1}


def test_columns_that_are_no_values_are_listed(tmp_path: Path) -> None:
    table = pa.table(
        {
            "path": ["a"],
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            "span": pa.array([1], pa.duration("s")),
            "record": [{"x": 1, "y": None}],
            "data": [b"x"],
        }
    )
    pq.write_table(table, tmp_path / "facts.parquet")
    found = read(tmp_path / "facts.parquet")
    assert (found.rows.columns, found.left_out) == (["key", "record"], ["map", "span", "data"])
    assert column(found, "record") == ['{"x":1,"y":null}']


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [(r"(p\d+)_", ["p01", None]), (r"(?P<who>p\d+)_", ["p01", None]), (r"p\d+_", ["p01_", None]), (r"_(\d)", [2, 7])],
)
def test_a_pattern_takes_its_first_group_or_the_whole_match(pattern: str, expected: list[Any]) -> None:
    part = AttributesPart(patterns={"x": pattern})
    found = match_patterns(part, pl.DataFrame({"path": ["a/p01_2.png", "b/q_7.png"]}))
    assert column(found, "x") == expected


@pytest.mark.parametrize("kind", list(TYPES))
def test_values_survive_as_text(kind: str) -> None:
    texts = {
        "text": ["a", "7"],
        "int": ["-5", "900000000000000000"],
        "float": ["0.1", "1e300"],
        "bool": ["true", "false"],
        "date": ["0001-01-01", "2026-12-31"],
        "datetime": ["2026-01-02 03:04:05.123456", "1999-12-31 23:59"],
    }
    values = cast(pl.Series("x", texts[kind]), kind)
    assert values.dtype == TYPES[kind]
    again = pl.select(from_text(pl.lit(as_text(values)), kind)).to_series()
    assert again.to_list() == values.to_list()
    assert again.null_count() == 0


def test_several_types_of_one_attribute_have_a_common_type() -> None:
    assert common_type(["int", "float"]) == "float"
    assert common_type(["date", "datetime", "date"]) == "datetime"
    assert common_type(["int", "bool"]) == "text"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name,x\na,1\n", "has no column path, image_id or file_digest"),
        (b"path,x\na,1,2\n", "a line has more values than the first line has names"),
        (b"path,x,x\na,1,2\n", "names the column 'x' twice"),
        (b"PK\x03\x04", "save it as CSV"),
        ("path,x\na,1\n".encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        (b"path,x\n\xff\xfe,1\n", "not UTF-8 text; save it as UTF-8"),
        (b"", "cannot be read"),
        (("path," + ",".join(f"c{k}" for k in range(300)) + "\n").encode(), "300 columns; at most 200"),
        (b"PAR1 no parquet", "cannot be read"),
    ],
)
def test_files_that_cannot_be_read_are_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "facts.csv").write_bytes(content)
    with pytest.raises(SourceError, match=said) as caught:
        read(tmp_path / "facts.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", 'path,x\n"a,1\n', 'a value starts with " and does not end with it'),
        ("a.csv", "\n\n", "it is empty"),
        ("a.jsonl", "", "it is empty"),
        ("a.jsonl", '{"path": "a", "x": 1}\n{"path": "b", "x": {"y": 2}}', "objects in some lines"),
        ("a.jsonl", '{"path": "a", "x":', "it is not valid JSON"),
        ("a.jsonl", "[1, 2]", "every line must be a JSON object"),
        ("a.json", "hello", "it is not valid JSON"),
        ("a.json", '{"images": 5, "annotations": [], "categories": []}', "COCO annotations have numbers as ids"),
        (
            "a.json",
            '{"images": [], "categories": [], "annotations": [{"image_id": 1, "category_id": 77}]}',
            "1 annotations are of a category id that categories does not list: 77",
        ),
    ],
)
def test_faults_of_text_are_said_in_words_of_our_own(tmp_path: Path, name: str, content: str, said: str) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        read(csv(tmp_path, content, name=name))
    assert "infer_schema" not in str(caught.value)


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone\.csv does not exist"):
        read(tmp_path / "gone.csv")
    with pytest.raises(SourceError, match="it has no column 'ages'; its columns: path, age"):
        read(csv(tmp_path, "path,age", "a,1"), columns=["ages"])
    with pytest.raises(SourceError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(SourceError, match="types names 'ages', but the attributes of .* are age"):
        read(csv(tmp_path, "path,age", "a,1"), types={"ages": "int"})


def test_a_compressed_csv_is_read(tmp_path: Path) -> None:
    (tmp_path / "facts.csv.gz").write_bytes(gzip.compress(b"path,x\na,1\n"))
    assert column(read(tmp_path / "facts.csv.gz"), "x") == [1]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({}, "needs either a uri or patterns"),
        ({"uri": "a.csv", "patterns": {"x": "y"}}, "needs either a uri or patterns"),
        ({"patterns": {"x": "(["}}, "is no regular expression"),
        ({"patterns": {"x": "y"}, "columns": ["a"]}, "columns and labels are of a file"),
        ({"patterns": {"x": "y"}, "types": {"z": "int"}}, "types names 'z', which is not in patterns: x"),
        ({"uri": "a.csv", "types": {"x": "number"}}, "types"),
        ({"uri": "https://user:word@host/a.csv"}, "download the file"),
        ({"uri": "a.csv", "colums": ["x"]}, "did you mean 'columns'"),
    ],
)
def test_faults_of_a_recipe_are_named(tmp_path: Path, part: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        parse_recipe({"source": [{"uri": "x"}], "attributes": [part]}, base=tmp_path)
    assert "word" not in str(caught.value)
