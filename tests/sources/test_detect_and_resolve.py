"""The form of a source is told by its content; a recipe's sources are found, or it is said what is wrong."""

import gzip
import os
import random
import zipfile
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import as_folder, as_tar, as_zip, files_of, handed_out, recipe, source_of

from pipeline.errors import RecipeError, SourceError
from pipeline.recipe import Format
from pipeline.sources import detect, read, resolve, survey
from pipeline.sources.forms import FORMS

IDX = b"\0\0\x08\3" + b"\0\0\0\1" * 3 + b"x"
CSV = b"label,a,b,c,d\n1,2,3,4,5\n"


@pytest.mark.parametrize(
    ("form", "make"),
    [
        ("tar", lambda file: as_tar(file, files_of(2), "w")),
        ("tar", lambda file: as_tar(file, files_of(2), "w:gz")),
        ("tar", lambda file: as_tar(file, files_of(2), "w:bz2")),
        ("tar", lambda file: as_tar(file, files_of(2), "w:xz")),
        ("tar", lambda file: as_tar(file, {}, "w")),
        ("tar", lambda file: as_tar(file, {"A/inner.zip": as_zip(file, files_of(1)).read_bytes()}, "w")),
        ("zip", lambda file: as_zip(file, files_of(2))),
        ("zip", lambda file: as_zip(file, {})),
        ("zip", lambda file: file.write_bytes(b"#!/bin/sh\n" + as_zip(file, files_of(1)).read_bytes())),
        ("zip", lambda file: file.write_bytes(as_zip(file, files_of(1)).read_bytes()[:50])),
        ("idx", lambda file: file.write_bytes(IDX)),
        ("idx", lambda file: file.write_bytes(gzip.compress(IDX))),
        ("csv", lambda file: file.write_bytes(CSV)),
        ("csv", lambda file: file.write_bytes(gzip.compress(CSV))),
        ("csv", lambda file: file.write_bytes(CSV.replace(b"\n", b"\r\n"))),
        ("csv", lambda file: file.write_bytes(b"\xef\xbb\xbf" + CSV)),
        ("csv", lambda file: file.write_bytes("étiquette,a,b\n".encode())),
        ("csv", lambda file: file.write_bytes(b",".join(b"%d" % n for n in range(785)))),
        ("folder", lambda file: as_folder(file, files_of(2))),
        ("folder", lambda file: file.mkdir()),
        ("idx", lambda file: as_folder(file, {"train-images-idx3-ubyte.gz": b""})),
    ],
)
@pytest.mark.parametrize("name", ["plain", "a.png", "a.tar.gz", "a.csv"])
def test_the_form_is_told_by_content_whatever_the_name(tmp_path: Path, form: str, make: Any, name: str) -> None:
    make(tmp_path / name)
    assert detect(tmp_path / name) == form


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 4,
        b"\0\0",
        b"hello, world\n",
        b"\x1f\x8b",
        gzip.compress(b"hello", mtime=0),
        b"BZh",
        b"\xfd7zXZ\0",
        b"\x89PNG",
    ],
)
def test_an_unknown_form_is_an_error_that_says_what_to_do(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(
        SourceError, match='x: its format is not recognised.*set format = "...".*check that it is complete'
    ) as caught:
        detect(tmp_path / "x")
    assert "\n" not in str(caught.value)


@given(
    data=st.binary(max_size=600),
    start=st.sampled_from([b"", b"PK\3\4", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\0\0"]),
)
def test_any_bytes_have_a_form_or_none(tmp_path_factory: pytest.TempPathFactory, data: bytes, start: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any"
    file.write_bytes(start + data)
    try:
        form = detect(file)
    except SourceError:
        return
    assert form in FORMS


def test_every_format_of_a_recipe_is_a_form() -> None:
    assert sorted(FORMS) == sorted(get_args(Format))


def test_format_overrides_what_the_content_says(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CSV)
    assert source_of(tmp_path / "x", format="tar").format == "tar"


@pytest.mark.parametrize("form", ["tar", "zip", "csv", "idx", "folder"])
def test_a_wrong_format_is_an_error_and_no_crash(tmp_path: Path, form: str) -> None:
    (tmp_path / "x").write_bytes(random.Random(0).randbytes(2_000))
    with pytest.raises(SourceError) as caught:
        handed_out(source_of(tmp_path / "x", format=form))
    assert "\n" not in str(caught.value)
    as_folder(tmp_path / "set", files_of(1))
    if form != "folder":
        with pytest.raises(SourceError):
            handed_out(source_of(tmp_path / "set", format=form))


@pytest.mark.parametrize("uri", ["nowhere", "x/y", "a" * 300, "a\0b"])
def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path, uri: str) -> None:
    (tmp_path / "x").write_bytes(CSV)
    with pytest.raises(SourceError, match="no file or folder .* Check the path"):
        resolve(recipe(tmp_path, {"uri": uri}))


def test_an_address_that_is_not_fetched_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"Only http\(s\) and s3 URLs are fetched"):
        resolve(recipe(tmp_path, {"uri": "ftp://host/x.tar"}))


def test_a_pipe_is_an_error_and_no_endless_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="a pipe, socket or device"):
        resolve(recipe(tmp_path, {"uri": "pipe"}))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CSV)
    (tmp_path / "x").chmod(0)
    with pytest.raises(SourceError, match="x: cannot be read"):
        detect(tmp_path / "x")


def test_a_source_without_a_split_is_train_where_nothing_says_another(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CSV)
    (tmp_path / "x-test.csv").write_bytes(CSV)
    for uri, split in (("x", "train"), ("x-test.csv", "test"), ("glyphs", "train")):
        part = {"uri": uri, "split": None, **({"format": "glyphs"} if uri == "glyphs" else {})}
        assert [source.split for source in resolve(recipe(tmp_path, part))] == [split]


def test_one_source_twice_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CSV)
    with pytest.raises(RecipeError, match=r"names the source d/train \(x\) twice"):
        resolve(recipe(tmp_path, {"uri": "x"}, {"uri": "x"}))
    assert len(resolve(recipe(tmp_path, {"uri": "x"}, {"uri": "x", "split": "test"}))) == 2


def test_paths_start_from_the_recipe_and_options_go_along(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CSV)
    (source,) = resolve(recipe(tmp_path, {"uri": "x"}, decode={"size": [2, 3], "max_bytes": 99}))
    assert (source.path, source.size, source.max_bytes) == (tmp_path / "x", (2, 3), 99)
    (absolute,) = resolve(recipe(tmp_path / "elsewhere", {"uri": str(tmp_path / "x")}))
    assert absolute.path == tmp_path / "x"


def test_a_file_that_goes_after_it_was_found_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CSV)
    source = source_of(tmp_path / "x")
    (tmp_path / "x").unlink()
    with pytest.raises(SourceError, match="cannot read .*x .No such file"):
        survey(source)


def test_two_sources_never_share_a_shard_key(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        with zipfile.ZipFile(tmp_path / folder / "x.zip", "w") as archive:
            archive.writestr("A/1", b"")
    one, two = resolve(recipe(tmp_path, {"uri": "a/x.zip"}, {"uri": "b/x.zip"}))
    assert {shard.shard for shard in read(one)}.isdisjoint(shard.shard for shard in read(two))
