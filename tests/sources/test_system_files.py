"""Hidden and system folders are no classes: what lies in them is a reject that names the folder, in every form."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import as_folder, as_tar, as_zip, encoded, handed_out, pictures, source_of, turned_away

from pipeline.sources.source import (
    _FILES,
    _FOLDERS,
    is_system_folder,
    may_hold_system_files,
    system_file,
    system_folder,
)

Pack = Callable[[Path, dict[str, bytes]], Path]
FOLDERS = [
    ".ipynb_checkpoints",
    "@eaDir",
    "__MACOSX",
    "__macosx",
    ".git",
    ".svn",
    ".dvc",
    ".Trash-1000",
    ".thumbnails",
    ".AppleDouble",
    ".Spotlight-V100",
    ".@__thumb",
    "$RECYCLE.BIN",
    "$Recycle.Bin",
    "System Volume Information",
    "lost+found",
    "#recycle",
    "@Recycle",
    "@tmp",
    "Network Trash Folder",
    "__pycache__",
]
FILES = [
    "._x.png",
    ".DS_Store",
    ".ds_store",
    "Thumbs.db",
    "thumbs.db",
    "THUMBS.DB",
    "ehthumbs.db",
    "Desktop.ini",
    "desktop.ini",
    "Icon\r",
    ".localized",
    ".directory",
    ".gitkeep",
    "x.png:Zone.Identifier",
    "Thumbs.db:encryptable",
]
CLASSES = [
    "Thumbs",
    "thumbs.dbx",
    "git",
    "tmp",
    "recycle",
    "desktop",
    "Desktop.ini",
    "MACOSX",
    "_MACOSX",
    "__init__",
    "eaDir",
    "lost",
    "System Volume",
    "#1",
    "@home",
    "$100",
    "Icon",
    "..x",
    "...",
    "a.git",
    "pycache",
]
FORMS: list[Pack] = [as_folder, as_tar, as_zip]


@pytest.mark.parametrize("pack", FORMS)
def test_files_in_system_folders_are_rejects_that_name_the_folder(tmp_path: Path, pack: Pack) -> None:
    odd = [
        path
        for n, name in enumerate(FOLDERS)
        for path in (f"{name}/{n}.png", f"cat/{name}/{n}.png", f"set/dog/{name}/1.png/deep/{n}.png")
    ]
    good = ["cat/1.png", "set/dog/2.png"]
    source = source_of(pack(tmp_path / "a.x", dict.fromkeys([*good, *odd], b"1")))
    assert {(path, label) for path, label, _ in handed_out(source)} == {("cat/1.png", "cat"), ("set/dog/2.png", "dog")}
    refused = {item.path: (item.label, item.reason, item.detail) for item in turned_away(source)}
    assert refused == {
        path: (None, "system_file", f"in {name}, a hidden folder or one of an operating system or tool")
        for path in odd
        for name in FOLDERS
        if name in path.split("/")
    }


@pytest.mark.parametrize("pack", FORMS)
def test_files_of_operating_systems_are_rejects_and_hidden_pictures_are_not(tmp_path: Path, pack: Pack) -> None:
    odd = [f"cat/{name}" for name in FILES]
    good = ["cat/.hidden.png", "cat/myThumbs.db", "cat/x._y.png", "cat/desktop.ini.png", "cat/Icon"]
    source = source_of(pack(tmp_path / "a.x", dict.fromkeys([*odd, *good], b"1")))
    assert {path for path, *_ in handed_out(source)} == set(good)
    detail = "left beside files by an operating system"
    assert {tuple(item) for item in turned_away(source)} == {(p, "cat", "system_file", detail, 1) for p in odd}


@pytest.mark.parametrize("pack", FORMS)
def test_an_ordinary_name_stays_a_class(tmp_path: Path, pack: Pack) -> None:
    files = {f"{name}/{n}.png": b"1" for n, name in enumerate(CLASSES)}
    source = source_of(pack(tmp_path / "a.x", files))
    assert {label for _, label, _ in handed_out(source)} == set(CLASSES)
    assert turned_away(source) == []


def test_a_system_folder_parts_no_sample_of_a_webdataset(tmp_path: Path) -> None:
    png = encoded(pictures(1)[0])
    files = {
        "a/1.png": png,
        "a/.ipynb_checkpoints/1-checkpoint.png": png,
        "__MACOSX/a/1.png": png,
        "a/@eaDir/1.cls": b"9",
        "a/Thumbs.db": b"",
        "a/1.cls": b"7",
        "a/2.png": png,
        "a/2.cls": b"8",
    }
    source = source_of(as_tar(tmp_path / "a.tar", files))
    assert source.format == "webdataset"
    assert [(path, label) for path, label, _ in handed_out(source)] == [("a/1.png", "7"), ("a/2.png", "8")]
    assert [(item.path, item.label, item.reason) for item in turned_away(source)] == [
        (path, None, "system_file") for path in list(files)[1:5]
    ]


def test_a_list_may_name_files_in_hidden_folders(tmp_path: Path) -> None:
    as_folder(tmp_path, {".cache/cat/1.png": b"1", "@eaDir/2.png": b"2", "Thumbs.db": b"3"})
    rows = "path,label\n.cache/cat/1.png,cat\n@eaDir/2.png,dog\nThumbs.db,dog\n"
    (tmp_path / "list.csv").write_text(rows)
    source = source_of(tmp_path / "list.csv")
    assert [(path, label) for path, label, _ in handed_out(source)] == [
        (".cache/cat/1.png", "cat"),
        ("@eaDir/2.png", "dog"),
    ]
    assert [(item.path, item.reason) for item in turned_away(source)] == [("Thumbs.db", "system_file")]


def test_a_folder_that_is_named_itself_may_be_hidden(tmp_path: Path) -> None:
    source = source_of(as_folder(tmp_path / ".cache", {"cat/1.png": b"1"}))
    assert [(path, label) for path, label, _ in handed_out(source)] == [("cat/1.png", "cat")]


_PARTS = st.sampled_from([*FOLDERS, *FILES, *CLASSES, "cat", "1.png", "a b"]) | st.text(max_size=4)


@given(st.lists(st.lists(_PARTS, min_size=1, max_size=3).map("/".join), max_size=5))
def test_the_quick_look_misses_no_system_file(paths: list[str]) -> None:
    if any(map(system_file, paths)):
        assert may_hold_system_files("\n".join(["", *paths, ""]))


def test_every_name_is_found_in_any_case() -> None:
    for name in _FOLDERS:
        assert is_system_folder(name.upper())
        assert system_folder(f"a/{name.title()}/b") == name.title()
        assert may_hold_system_files(f"\n{name.upper()}/x\n")
    for name in _FILES:
        assert system_file(f"a/{name.upper()}")
        assert may_hold_system_files(f"\na/{name.title()}\n")
    ordinary = "\n".join(["", *(f"set/A/QmFzZTY0{n}.png" for n in range(50)), ""])
    assert not may_hold_system_files(ordinary)
