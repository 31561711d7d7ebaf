"""Files and folders that share a name: a folder called like the picture in it is no class, in every form."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from making import as_folder, as_tar, as_zip, handed_out, source_of, turned_away

Pack = Callable[[Path, dict[str, bytes]], Path]
ROWS = [
    ("cat/1.jpg/1.jpg", "cat"),
    ("cat/2.jpg/2.jpg", "cat"),
    ("train/dog/3.png/3.png", "dog"),
    ("train/dog/4.PNG/4.png", "dog"),
    ("train/dog/5.tif/5.tif/5.tif", "dog"),
    ("6.webp/6.webp", None),
    ("cat/7.jpg", "cat"),
    # Folders that are classes all the same: the picture has another name, or the name is that of no picture.
    ("8.jpg/page.jpg", "8.jpg"),
    ("horse/horse", "horse"),
    ("bird.v2/bird.v2", "bird.v2"),
    ("frog/frog.png", "frog"),
]


@pytest.mark.parametrize("pack", [as_folder, as_tar, as_zip])
def test_a_folder_called_like_its_picture_is_no_class(tmp_path: Path, pack: Pack) -> None:
    source = source_of(pack(tmp_path / "a.x", {path: path.encode() for path, _ in ROWS}))
    assert sorted((path, label) for path, label, _ in handed_out(source)) == sorted(ROWS, key=lambda row: row[0])


@pytest.mark.parametrize("pack", [as_folder, as_tar, as_zip])
def test_what_is_turned_away_has_the_label_of_what_is_not(tmp_path: Path, pack: Pack) -> None:
    files = {path: bytes(20) for path, _ in ROWS}
    source = source_of(pack(tmp_path / "a.x", files), decode={"max_bytes": 10})
    assert sorted((item.path, item.label) for item in turned_away(source)) == sorted(ROWS, key=lambda row: row[0])


@pytest.mark.parametrize("mode", ["zip", "tar"])
def test_a_file_and_a_folder_of_one_name_are_both_read(tmp_path: Path, mode: str) -> None:
    files = {"cat": b"a file", "cat/1.png": b"1", "set/dog/2.png": b"2", "set/dog": b"another"}
    file = (as_zip if mode == "zip" else as_tar)(tmp_path / "a.x", files)
    rows = handed_out(source_of(file))
    assert rows == [
        ("cat", None, b"a file"),
        ("cat/1.png", "cat", b"1"),
        ("set/dog/2.png", "dog", b"2"),
        ("set/dog", "set", b"another"),
    ]


def test_a_folder_of_a_zip_without_its_slash_is_told_by_its_attributes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, attributes in (("cat", 0o40755 << 16), ("dog", 0x10)):
            info = zipfile.ZipInfo(name)
            info.external_attr = attributes
            archive.writestr(info, b"")
        archive.writestr("cat/1.png", b"1")
        archive.writestr("empty.png", b"")
    source = source_of(tmp_path / "a.zip")
    assert handed_out(source) == [("cat/1.png", "cat", b"1"), ("empty.png", None, b"")]
    assert turned_away(source) == []
