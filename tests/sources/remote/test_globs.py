"""One uri for several files: which files match, what their paths and uris are, and what a build makes of them."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import as_folder, as_tar, encoded, files_of, pictures, recipe

from pipeline.builder.build import build, plan
from pipeline.engines.local import LocalEngine
from pipeline.errors import CheckError, RecipeError, SourceError
from pipeline.lake_handle import Lake
from pipeline.sources import Source, is_fetched, read, resolve
from pipeline.sources.remote import _fits

CSV = b"label,pixel0,pixel1,pixel2,pixel3\n1,2,3,4,5\n"


def found(base: Path, uri: str, **part: Any) -> list[Source]:
    return resolve(recipe(base, {"uri": uri, **part}))


def names(base: Path, uri: str) -> list[tuple[str, str]]:
    return [(source.uri, source.prefix) for source in found(base, uri)]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with files at several depths, hidden ones among them, and a folder that is called like a file."""
    files = ["b.csv", "a.csv", "a1.csv", ".h.csv", "x.txt", "s/a.csv", "s/t/a.csv", "u/t/b.csv", ".hidden/a.csv"]
    as_folder(tmp_path / "in", dict.fromkeys(files, CSV))
    (tmp_path / "in" / "folder.csv").mkdir()
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("uri", "fixed", "matches"),
    [
        ("*.csv", "", ["a.csv", "a1.csv", "b.csv"]),
        ("./*.csv", "./", ["a.csv", "a1.csv", "b.csv"]),
        ("?.csv", "", ["a.csv", "b.csv"]),
        ("[bc].csv", "", ["b.csv"]),
        ("[!b].csv", "", ["a.csv"]),
        (".*.csv", "", [".h.csv"]),
        (".h*/*", "", [".hidden/a.csv"]),
        ("*/a.csv", "", ["s/a.csv"]),
        ("*/*/*.csv", "", ["s/t/a.csv", "u/t/b.csv"]),
        ("s/*/*.csv", "s/", ["t/a.csv"]),
        ("s/**/*.csv", "s/", ["a.csv", "t/a.csv"]),
        ("**/a.csv", "", ["a.csv", "s/a.csv", "s/t/a.csv"]),
        ("**/t/*", "", ["s/t/a.csv", "u/t/b.csv"]),
        ("u/**", "u/", ["t/b.csv"]),
        ("**/**/b.csv", "", ["b.csv", "u/t/b.csv"]),
        ("s//*.csv/", "s/", ["a.csv"]),
        ("u/../s/*", "u/../s/", ["a.csv"]),
    ],
)
def test_what_matches_comes_in_order_with_its_own_name(base: Path, uri: str, fixed: str, matches: list[str]) -> None:
    assert names(base, uri) == [(f"{fixed}{name}", f"{name}/") for name in matches]
    assert {source.group for source in found(base, uri)} == {uri}
    assert names(base, f"../in/{uri}") == [(f"../in/{fixed}{name}", f"{name}/") for name in matches]
    absolute = found(base.parent, f"{base}/{uri}")
    assert [source.path for source in absolute] == [base / fixed / name for name in matches]


@given(st.lists(st.sampled_from(["a", "b", ".a", "ab"]), min_size=1, max_size=4), st.data())
def test_keys_and_files_match_alike(
    tmp_path_factory: pytest.TempPathFactory, path: list[str], data: st.DataObject
) -> None:
    parts = st.sampled_from(["a", "*", "?", "**", "[ab]", ".*", "a*"])
    pattern = data.draw(st.lists(parts, min_size=1, max_size=4).filter(lambda p: any(c in "*?[" for c in "".join(p))))
    base = tmp_path_factory.mktemp("keys")
    as_folder(base, {"/".join(path): CSV})
    whole = [*pattern, "*"] if pattern[-1] == "**" else pattern
    try:
        matched = bool(found(base, "/".join(pattern)))
    except SourceError:
        matched = False
    assert matched == _fits(path, whole)


def test_links_are_followed_but_never_round_and_round(base: Path) -> None:
    (base / "s" / "up").symlink_to("..")
    (base / "link.csv").symlink_to("a.csv")
    assert [uri for uri, _ in names(base, "**/a.csv")] == ["a.csv", "s/a.csv", "s/t/a.csv"]
    assert [uri for uri, _ in names(base, "*/up/b.csv")] == ["s/up/b.csv"]
    assert [uri for uri, _ in names(base, "l*")] == ["link.csv"]


def test_a_link_to_nothing_is_not_passed_over(base: Path) -> None:
    (base / "broken.csv").symlink_to("nowhere")
    with pytest.raises(SourceError, match="no file or folder .*broken.csv"):
        found(base, "b*.csv")


def test_a_file_that_is_really_called_so_comes_first(base: Path) -> None:
    as_folder(base, {"a[1].csv": CSV, "*.csv": CSV})
    assert names(base, "a[1].csv") == [("a[1].csv", "")]
    assert names(base, "*.csv") == [("*.csv", "")]
    assert ("a[1].csv", "a[1].csv/") in names(base, "a*.csv")


@pytest.mark.parametrize("uri", ["*.parquet", "s/*.tar", "**/none", "folder*", "*/"])
def test_no_match_is_an_error(base: Path, uri: str) -> None:
    with pytest.raises(
        SourceError, match="d: no file matches .* name a folder of images without a pattern. Check the uri"
    ):
        found(base / "u" if uri == "*/" else base, uri)


@pytest.mark.parametrize("uri", ["nowhere/*.csv", "a.csv/*", "a\0/*"])
def test_a_folder_that_cannot_be_listed_is_an_error(base: Path, uri: str) -> None:
    with pytest.raises(SourceError, match="cannot list .*Check the uri") as caught:
        found(base, uri)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["*/../a.csv", "a**", "s/**.csv", "***"])
def test_a_pattern_that_makes_no_sense_is_an_error(base: Path, uri: str) -> None:
    with pytest.raises(RecipeError, match=r"'..' is not allowed, and \*\* must stand alone"):
        found(base, uri)


def test_a_name_that_is_no_utf8_is_an_error(base: Path) -> None:
    with open(os.fsencode(base) + b"/\xff.csv", "wb") as stream:  # noqa: PTH123 - a name in bytes
        stream.write(CSV)
    with pytest.raises(SourceError, match=r"the name \\xff.csv is not UTF-8. Rename the file"):
        found(base, "*.csv")
    assert len(found(base, "a*.csv")) == 2


@pytest.mark.parametrize(
    "check", [{"bytes": 3}, {"digest": f"md5:{'0' * 32}"}, {"bytes": 3, "digest": f"md5:{'0' * 32}"}]
)
def test_what_is_of_one_file_is_not_asked_of_several(base: Path, check: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=f"{', '.join(check)} is only valid for one file, and the uri is a pattern"):
        found(base, "*.csv", **check)
    with pytest.raises(RecipeError, match="is only valid for one file"):
        found(base, "b*.csv", **check)


def test_labels_of_idx_files_are_not_one_file(base: Path) -> None:
    as_folder(base, {"x-images-idx3-ubyte": b"\0\0\x08\3" + b"\0\0\0\1" * 3 + b"x"})
    assert len(found(base, "*-ubyte")) == 1
    with pytest.raises(RecipeError, match="source .*-ubyte: labels names one file for several"):
        found(base, "*-ubyte", labels="x")


def test_two_patterns_that_share_a_file_are_an_error(base: Path) -> None:
    with pytest.raises(RecipeError, match=r"names the source d/train .a.csv. twice"):
        resolve(recipe(base, {"uri": "a*.csv"}, {"uri": "?.csv"}))
    with pytest.raises(RecipeError, match=r"names the source d/train .a.csv. twice"):
        resolve(recipe(base, {"uri": "a*.csv"}, {"uri": "a.csv"}))


def test_the_lakes_own_files_are_left_out(base: Path) -> None:
    before = [source.uri for source in found(base, "**/*.csv")]
    as_folder(base, {"lake/images/a.csv": CSV})
    assert [source.uri for source in found(base, "**/*.csv")] == before
    with pytest.raises(SourceError, match="matches only files of the lake"):
        found(base, "lake/**/*.csv")


def test_patterns_are_at_hand_and_addresses_are_no_patterns(base: Path) -> None:
    assert is_fetched(recipe(base, {"uri": "none*"}).source[0])
    with pytest.raises(SourceError, match="no file or folder"):
        found(base, "ftp://host/*.csv")


def test_forms_are_told_file_by_file(tmp_path: Path) -> None:
    as_tar(tmp_path / "x1", files_of(2))
    (tmp_path / "x2").write_bytes(CSV)
    assert [source.format for source in found(tmp_path, "x*")] == ["tar", "csv"]


def test_paths_begin_with_the_name_of_their_file(tmp_path: Path) -> None:
    files = files_of(4)
    (tmp_path / "in").mkdir()
    as_tar(tmp_path / "in" / "a.tar", {**files, "A/._x": b""}, "w")
    (source,) = found(tmp_path, "in/*.tar")
    (shard,) = read(source)
    assert shard.paths == tuple(f"a.tar/{path}" for path in files)
    assert shard.labels == ("A", "B", "A", "B")
    assert [(item.path, item.label) for item in shard.rejects] == [("a.tar/A/._x", "A")]
    (tmp_path / "in" / "flat.csv").write_bytes(CSV)
    (flat,) = found(tmp_path, "*/flat.csv")
    assert [path for shard in read(flat) for path in shard.paths] == ["in/flat.csv/0"]


def parquet(file: Path, labels: str, seed: int) -> None:
    file.parent.mkdir(exist_ok=True)
    images = [encoded(pixels) for pixels in pictures(len(labels), seed)]
    pq.write_table(pa.table({"image": images, "label": list(labels)}), file)


def stored(root: str) -> list[tuple[str, str, str]]:
    rows = Lake(root).scan("images").select("path", "label", "shard").sort("path").collect().rows()
    return [(path, label, shard.rsplit("-", 1)[0]) for path, label, shard in rows]


def test_files_come_change_and_go_one_by_one(tmp_path: Path) -> None:
    parquet(tmp_path / "data" / "train-0.parquet", "AB", 0)
    asked = recipe(tmp_path, {"uri": "data/train-*.parquet"}, decode={"size": [28, 28]})
    assert plan(asked)[0] == ("ingest", "d/train (data/train-0.parquet)", "new")
    made = build(asked, engine=LocalEngine(1))
    first = stored(made.root)
    assert [(path, label) for path, label, _ in first] == [("train-0.parquet/0", "A"), ("train-0.parquet/1", "B")]
    assert build(asked, engine=LocalEngine(1)).done == ()
    # A file more renames nothing and reads nothing again.
    parquet(tmp_path / "data" / "train-1.parquet", "BCA", 1)
    todo = [item.unit for item in plan(asked) if item.stage == "ingest"]
    assert todo == ["d/train (data/train-1.parquet)"]
    assert build(asked, engine=LocalEngine(2)).images == 5
    assert stored(made.root)[:2] == first
    # A file that goes stays in the lake until it is pruned.
    (tmp_path / "data" / "train-0.parquet").unlink()
    assert plan(asked) == []
    assert build(asked, engine=LocalEngine(1)).done == ()
    assert [item for item in plan(asked, prune=True) if item.stage == "ingest"] == [
        ("ingest", "d/train (data/train-0.parquet)", "no longer in the recipe")
    ]
    assert build(asked, engine=LocalEngine(1), prune=True).images == 3


def test_classes_are_checked_over_all_files_together(tmp_path: Path) -> None:
    for number, labels in enumerate(("AAB", "BC", "CC")):
        parquet(tmp_path / f"{number}.parquet", labels, number)
    for checks, match in (
        ({"classes": 2}, r"d/train .\?.parquet.: 3 classes .A, B, C., the recipe asks for 2"),
        ({"min_per_class": 3}, r"d/train .\?.parquet.: A has 2, B has 2 images; the recipe asks for at least 3"),
    ):
        with pytest.raises(CheckError, match=match):
            build(recipe(tmp_path, {"uri": "?.parquet", **checks}), engine=LocalEngine(1))
    good = recipe(tmp_path, {"uri": "?.parquet", "classes": 3, "min_per_class": 2})
    assert build(good, engine=LocalEngine(1)).images == 7
    # Retained and new shards count alike.
    parquet(tmp_path / "3.parquet", "D", 3)
    with pytest.raises(CheckError, match="4 classes"):
        build(good, engine=LocalEngine(1))
    stricter = recipe(tmp_path, {"uri": "[0-2].parquet", "classes": 4})
    with pytest.raises(CheckError, match=r"d/train .\[0-2\].parquet.: 3 classes"):
        build(stricter, engine=LocalEngine(1))
