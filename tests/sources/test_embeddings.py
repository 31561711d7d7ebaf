"""Vectors that the user brings: what is read, and what each error says."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making import recipe
from numpy.typing import NDArray

from pipeline.dedup.rules import parse_rule
from pipeline.errors import RecipeError, SourceError
from pipeline.recipe import EmbeddingPart
from pipeline.sources.embeddings import read_embedding

Vectors = NDArray[np.float32]

PATHS = ["A/0.png", "A/ä ö.png", "B/0.png"]


def part(uri: str, **more: Any) -> EmbeddingPart:
    return EmbeddingPart(name="clip", uri=uri, dataset="d", **more)


def some(n: int = 3, d: int = 4) -> Vectors:
    return np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)


def write(file: Path, vectors: Any, column: str = "embedding", **names: Any) -> Path:
    pq.write_table(pa.table({**names, column: vectors}), file)
    return file


def fails(found: EmbeddingPart, base: Path, *said: str) -> None:
    with pytest.raises(SourceError) as raised:
        read_embedding(found, base)
    message = str(raised.value)
    assert message.startswith("embedding 'clip': ")
    for words in said:
        assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4", ">f8"])
def test_rows_of_an_array_belong_to_numbers(tmp_path: Path, kind: Any) -> None:
    np.save(tmp_path / "v.npy", some().astype(kind))
    column, names, vectors = read_embedding(part("v.npy"), tmp_path)
    assert (column, names.to_list()) == ("path", ["0", "1", "2"])
    assert names.dtype == pl.String
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, some().astype(kind).astype(np.float32))


def test_rows_of_an_array_belong_to_the_lines_of_paths(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.asfortranarray(some()))
    (tmp_path / "paths.txt").write_text("\n".join(PATHS) + "\n", encoding="utf-8")
    column, names, vectors = read_embedding(part("v.npy", paths="paths.txt"), tmp_path)
    assert (column, names.to_list()) == ("path", PATHS)
    assert np.array_equal(vectors, some())


@pytest.mark.parametrize("width", [None, 4])
@pytest.mark.parametrize("value", [pa.float32(), pa.float64(), pa.float16()])
@pytest.mark.parametrize("by", ["path", "image_id"])
def test_lists_of_a_parquet_file_belong_to_its_names(tmp_path: Path, by: str, value: Any, width: int | None) -> None:
    wide = some().astype(value.to_pandas_dtype())
    kind = pa.list_(value) if width is None else pa.list_(value, width)
    ids = [b"\x00" * 16, b"\xff" * 16, bytes(range(16))]
    named: dict[str, Any] = {by: PATHS if by == "path" else ids}
    file = write(tmp_path / "v.parquet", pa.array(list(wide), kind), **named)
    column, names, vectors = read_embedding(part(file.name), tmp_path)
    assert (column, names.to_list()) == (by, named[by])
    assert names.dtype == (pl.String if by == "path" else pl.Binary)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, wide.astype(np.float32))


def test_image_ids_come_before_paths_and_other_columns_do_not_matter(tmp_path: Path) -> None:
    ids = [bytes([k]) * 16 for k in range(3)]
    file = write(tmp_path / "v.parquet", list(some()), column="mine", path=PATHS, image_id=ids, embedding=[1, 2, 3])
    column, names, vectors = read_embedding(part(file.name, column="mine"), tmp_path)
    assert (column, names.to_list()) == ("image_id", ids)
    assert np.array_equal(vectors, some())


def test_several_row_groups_and_an_absolute_path(tmp_path: Path) -> None:
    table = pa.table({"path": [str(k) for k in range(100)], "embedding": list(some(100))})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=7)
    _, names, vectors = read_embedding(part(str(tmp_path / "v.parquet")), Path("/nowhere"))
    assert names.to_list() == [str(k) for k in range(100)]
    assert np.array_equal(vectors, some(100))


def test_a_file_of_no_rows_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", some(0))
    assert read_embedding(part("v.npy"), tmp_path)[2].shape == (0, 4)
    write(tmp_path / "v.parquet", pa.array([], pa.list_(pa.float32())), path=pa.array([], pa.string()))
    _, names, vectors = read_embedding(part("v.parquet"), tmp_path)
    assert (len(names), len(vectors)) == (0, 0)


@pytest.mark.parametrize("name", ["none.npy", "none.parquet"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    fails(part(name), tmp_path, f"{tmp_path / name} does not exist. Correct its path.")


def test_a_missing_list_of_paths_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", some())
    fails(part("v.npy", paths="none.txt"), tmp_path, f"{tmp_path / 'none.txt'} does not exist. Correct its path.")


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_an_array_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([[Trap(tmp_path / "sprung")]], dtype=object), allow_pickle=True)
    fails(part("v.npy"), tmp_path, str(tmp_path / "v.npy"), "cannot be read")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "array", [np.zeros(4), np.zeros((2, 3, 4)), np.zeros((2, 4), np.int64), np.zeros((2, 4), complex), np.float32(1)]
)
def test_an_array_of_another_form_says_which_is_wanted(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "v.npy", array)
    shape = str(np.shape(array))
    fails(part("v.npy"), tmp_path, str(tmp_path / "v.npy"), str(array.dtype), shape, "(n, d) floats are needed")


def test_what_is_no_array_and_no_parquet_is_named(tmp_path: Path) -> None:
    for name, data in (("v.npy", b"no array"), ("v.parquet", b"no table"), ("w.npy", b""), ("w.parquet", b"")):
        (tmp_path / name).write_bytes(data)
        fails(part(name), tmp_path, f"{tmp_path / name} cannot be read (")
    (tmp_path / "folder.npy").mkdir()
    fails(part("folder.npy"), tmp_path, f"{tmp_path / 'folder.npy'} cannot be read (")


def test_more_or_fewer_paths_than_rows_are_counted(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", some())
    (tmp_path / "paths.txt").write_text("A\nB\n", encoding="utf-8")
    fails(part("v.npy", paths="paths.txt"), tmp_path, str(tmp_path / "v.npy"), "3 rows, but paths.txt has 2 lines")


def test_paths_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", some(1))
    (tmp_path / "paths.txt").write_bytes(b"\xff\xfe\n")
    fails(part("v.npy", paths="paths.txt"), tmp_path, "cannot be read")


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    file = write(tmp_path / "v.parquet", list(some()), column="vector", path=PATHS)
    fails(part("v.parquet"), tmp_path, str(file), "no column embedding; it has path, vector")
    write(file, list(some()), name=PATHS)
    fails(part("v.parquet"), tmp_path, str(file), "no column path; it has name, embedding")
    fails(part("v.parquet", column="x"), tmp_path, "no column path and x; it has name, embedding")


@pytest.mark.parametrize("vectors", [[[1.0], [1.0, 2.0], [3.0]], [[1.0], None, [2.0]]])
def test_vectors_of_unlike_length_or_missing_ones_are_an_error(tmp_path: Path, vectors: Any) -> None:
    file = write(tmp_path / "v.parquet", vectors, path=PATHS)
    fails(part("v.parquet"), tmp_path, str(file), "column embedding are missing or differ in length")
    if None in vectors:
        write(file, pa.array(vectors, pa.list_(pa.float32(), 1)), path=PATHS)
        fails(part("v.parquet"), tmp_path, str(file), "column embedding are missing or differ in length")


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], ["a", "b", "c"], [["a"], ["b"], ["c"]], [{"x": 1.0}] * 3])
def test_a_column_that_holds_no_vectors_is_an_error(tmp_path: Path, values: Any) -> None:
    file = write(tmp_path / "v.parquet", values, path=PATHS)
    fails(part("v.parquet"), tmp_path, f"{file} cannot be read (")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_a_value_that_is_no_number_is_named_by_its_row(tmp_path: Path, form: str, value: float) -> None:
    vectors, file = some(), tmp_path / f"v.{form}"
    vectors[1, 2] = value
    if form == "npy":
        np.save(file, vectors)
    else:
        write(file, list(vectors), path=PATHS)
    fails(part(file.name), tmp_path, f"{file} row 1 has a value that is not a finite number. Correct it.")


def test_a_gap_in_a_vector_is_no_number(tmp_path: Path) -> None:
    file = write(tmp_path / "v.parquet", [[1.0, 2.0], [1.0, 1.0], [None, 2.0]], path=PATHS)
    fails(part("v.parquet"), tmp_path, f"{file} row 2 has a value that is not a finite number. Correct it.")


@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_a_value_too_large_for_float32_is_an_error_and_no_warning(tmp_path: Path, form: str) -> None:
    vectors, file = np.array([[1.0, 2.0], [1e300, 0.0], [0.0, 1.0]]), tmp_path / f"v.{form}"
    if form == "npy":
        np.save(file, vectors)
    else:
        write(file, list(vectors), path=PATHS)
    fails(part(file.name), tmp_path, str(file))


def test_a_name_that_is_there_twice_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "v.parquet", list(some()), path=["A/0.png", "B/1.png", "B/1.png"])
    fails(part("v.parquet"), tmp_path, f"{file} has several vectors for path 'B/1.png'. Keep one.")
    np.save(tmp_path / "v.npy", some())
    (tmp_path / "paths.txt").write_text("A\nA\nB\n", encoding="utf-8")
    fails(part("v.npy", paths="paths.txt"), tmp_path, "has several vectors for path 'A'. Keep one.")
    write(file, list(some()), image_id=[b"a" * 16, b"b" * 16, b"a" * 16])
    fails(part("v.parquet"), tmp_path, f"{file} has several vectors for image_id", "Keep one.")


def test_two_files_of_one_name_may_cover_two_splits(tmp_path: Path) -> None:
    listed = [{"name": "clip", "uri": f"{split}.npy", "dataset": "d", "split": split} for split in ("train", "test")]
    assert len(recipe(tmp_path, {"uri": "in"}, embedding=listed).embedding) == 2


@pytest.mark.parametrize("name", ["embedding", "embedding:", "embedding:0.9", "embedding:clip", "embedding:clip:2"])
def test_a_rule_that_is_no_name_and_cosine_is_an_error(name: str) -> None:
    with pytest.raises(RecipeError, match="write embedding:clip:0.9"):
        parse_rule(name)
