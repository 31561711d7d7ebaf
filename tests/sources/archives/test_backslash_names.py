r"""Backslashes in archives: folders where a Windows tool wrote them, and nothing else where they are part of a name."""

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import as_tar, as_zip, encoded, handed_out, pictures, recipe, source_of, turned_away

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import SourceError
from pipeline.sources.archives.archive import are_separators, encodings_of, with_slashes

_WINDOWS, _UNIX, _MAC = 0, 3, 19
_UTF8 = 0x800
_UNICODE_PATH = 0x7075


def zip_of(
    file: Path, names: Sequence[str | bytes], system: int = _WINDOWS, extra: Mapping[bytes, bytes] | None = None
) -> Path:
    """Write a zip: names in bytes stand in it without the mark of UTF-8, text as the library marks it."""
    with zipfile.ZipFile(file, "w") as archive:
        for number, name in enumerate(names):
            info = zipfile.ZipInfo("x")
            # The library marks what is no ASCII as UTF-8; a stand-in of the same length is replaced below.
            info.filename = name if isinstance(name, str) else stand_in(number, name)
            info.create_system = system
            info.extra = (extra or {}).get(name, b"") if isinstance(name, bytes) else b""
            archive.writestr(info, str(number))
    data = file.read_bytes()
    for number, name in enumerate(names):
        if isinstance(name, bytes):
            data = data.replace(stand_in(number, name).encode(), name)
    file.write_bytes(data)
    return file


def stand_in(number: int, name: bytes) -> str:
    return f"{number:03d}".ljust(len(name), "#")


def read_back(file: Path) -> list[tuple[str, str | None]]:
    return [(path, label) for path, label, _ in handed_out(source_of(file))]


SEPARATED = [
    ([r"train\cat\0.png", r"train\dog\1.png"], [("train/cat/0.png", "cat"), ("train/dog/1.png", "dog")]),
    ([r"cat\0.png", r"dog\x\1.png"], [("cat/0.png", "cat"), ("dog/x/1.png", "x")]),
    (
        [r"C:\data\cat\0.png", r"\\server\share\dog\1.png"],
        [("C:/data/cat/0.png", "cat"), ("server/share/dog/1.png", "dog")],
    ),
    ([r".\cat\0.png", r"cat\\1.png"], [("cat/0.png", "cat"), ("cat/1.png", "cat")]),
    ([r"größe\кот\0.png", r"größe\猫\1.png"], [("größe/кот/0.png", "кот"), ("größe/猫/1.png", "猫")]),
]


@pytest.mark.parametrize(("names", "rows"), SEPARATED)
@pytest.mark.parametrize("system", [_WINDOWS, 10, 14, _UNIX, _MAC])
def test_names_of_backslashes_alone_are_folders_in_a_zip(
    tmp_path: Path, names: list[str], rows: list[tuple[str, str]], system: int
) -> None:
    assert read_back(zip_of(tmp_path / "a.zip", names, system)) == rows


@pytest.mark.parametrize(("names", "rows"), SEPARATED)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_names_of_backslashes_alone_are_folders_in_a_tar(
    tmp_path: Path, names: list[str], rows: list[tuple[str, str]], mode: str
) -> None:
    files = {name: name.encode() for name in names}
    source = source_of(as_tar(tmp_path / "a.tar", files, mode))
    assert handed_out(source) == [(*row, name.encode()) for row, name in zip(rows, names, strict=True)]


def test_folders_of_a_zip_that_end_in_a_backslash_are_no_files(tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("train\\", "train\\cat\\"):
            info = zipfile.ZipInfo("x")
            info.filename, info.create_system = name, _WINDOWS
            archive.writestr(info, b"")
        marked = zipfile.ZipInfo("dog")
        marked.external_attr = 0x10
        archive.writestr(marked, b"")
        archive.writestr("dog/1.png", b"1")
    source = source_of(file)
    assert (handed_out(source), turned_away(source)) == ([("dog/1.png", "dog", b"1")], [])


MIXED = [r"data/train\cat\0.png", r"data/train\cat\1.png", r"data/train\dog\2.png"]


@pytest.mark.parametrize("system", [_WINDOWS, _UNIX])
def test_mixed_names_of_a_windows_tool_are_folders(tmp_path: Path, system: int) -> None:
    rows = [("data/train/cat/0.png", "cat"), ("data/train/cat/1.png", "cat"), ("data/train/dog/2.png", "dog")]
    assert read_back(zip_of(tmp_path / "a.zip", MIXED, system)) == rows
    for mode in ("w", "w:gz"):
        assert read_back(as_tar(tmp_path / "a.tar", dict.fromkeys(MIXED, b"1"), mode)) == rows


@pytest.mark.parametrize(
    "names",
    [
        ["A/x.png", r"A/we\ird.png", r"B/od\d\.png"],
        [r"A/we\ird.png", "B/y.png"],
        [r"A/we\ird.png"],
        [r"A\b/x.png", "B/y.png", r"A\b/z.png"],
    ],
)
def test_a_backslash_in_a_name_of_linux_stays(tmp_path: Path, names: list[str]) -> None:
    rows = [(name, name.split("/")[0]) for name in names]
    assert read_back(zip_of(tmp_path / "a.zip", names, _UNIX)) == rows
    for mode in ("w", "w:gz"):
        assert read_back(as_tar(tmp_path / "a.tar", dict.fromkeys(names, b"1"), mode)) == rows


def test_what_a_mac_adds_and_files_at_the_top_say_nothing_of_the_names(tmp_path: Path) -> None:
    names = [*MIXED, "__MACOSX/._0.png", ".DS_Store", "README.md"]
    labels = ["cat", "cat", "dog", None]
    assert [label for _, label in read_back(zip_of(tmp_path / "a.zip", names, _UNIX))] == labels
    assert [label for _, label in read_back(as_tar(tmp_path / "a.tar", dict.fromkeys(names, b"1")))] == labels


@pytest.mark.parametrize(
    ("encoding", "classes"),
    [
        ("cp932", ["表", "ソ", "能", "十", "構造"]),
        ("cp932", ["ｶﾒﾗ表", "PC構成", "申込"]),
        ("big5", ["功", "許功蓋", "餐廳"]),
        ("gbk", ["猫", "俓", "乗車"]),
    ],
)
def test_a_character_that_ends_in_a_backslash_is_not_cut(tmp_path: Path, encoding: str, classes: list[str]) -> None:
    for separator in ("/", "\\"):
        if separator == "\\" and "PC構成" in classes:
            continue  # half-width letters and no slash: read as Chinese, which nothing tells apart
        names = [f"set{separator}{name}{separator}{n}.png".encode(encoding) for n, name in enumerate(classes)]
        for system in (_WINDOWS, _UNIX):
            rows = read_back(zip_of(tmp_path / "a.zip", names, system))
            assert [label for _, label in rows] == [name.encode(encoding).decode("cp437") for name in classes]
            assert {path.split("/")[0] for path, _ in rows} == {"set"}


def test_a_word_that_ends_in_an_accent_is_a_folder(tmp_path: Path) -> None:
    words = ["café", "Menü", "Ñandú"]
    names = [f"train\\{word}\\{n}.png".encode("cp437") for n, word in enumerate(w.replace("ú", "u") for w in words)]
    assert [label for _, label in read_back(zip_of(tmp_path / "a.zip", names))] == ["café", "Menü", "Ñandu"]


def test_utf8_without_its_mark_is_cut_where_it_should_be(tmp_path: Path) -> None:
    names = [f"{name}\\{n}.png".encode() for n, name in enumerate(["能", "é", "🐈"])]
    labels = [label for _, label in read_back(zip_of(tmp_path / "a.zip", names))]
    assert labels == [name.encode().decode("cp437") for name in ("能", "é", "🐈")]


def unicode_path(raw: bytes, name: str, checksum: int | None = None) -> bytes:
    data = struct.pack("<BL", 1, zlib.crc32(raw) if checksum is None else checksum) + name.encode()
    return struct.pack("<HH", _UNICODE_PATH, len(data)) + data


def test_the_unicode_name_of_info_zip_counts_where_it_belongs_to_the_entry(tmp_path: Path) -> None:
    raws = ["表/1.png".encode("cp932"), "能\\2.png".encode("cp932"), b"plain/3.png"]
    extra = {
        raws[0]: unicode_path(raws[0], "表/1.png"),
        raws[1]: struct.pack("<HH", 0x7855, 2) + b"up" + unicode_path(raws[1], "能\\2.png"),
        raws[2]: unicode_path(raws[2], "other/3.png", checksum=7),
    }
    rows = read_back(zip_of(tmp_path / "a.zip", raws, extra=extra))
    assert rows == [("表/1.png", "表"), ("能/2.png", "能"), ("plain/3.png", "plain")]


def test_a_tar_in_shift_jis_keeps_its_folders(tmp_path: Path) -> None:
    names = ["表/1.png", "ソ/2.png", "能\\3.png"]
    raws = [name.encode("cp932").decode("utf-8", "surrogateescape") for name in names]
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        for raw in raws:
            info = tarfile.TarInfo(raw)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"1"))
    assert [label for _, label in read_back(tmp_path / "a.tar")] == ["\\x95\\", "\\x83\\", "\\x94\\"]


def test_a_webdataset_with_backslashes_keeps_its_samples(tmp_path: Path) -> None:
    files = {r"a\1.png": b"1", r"a\1.cls": b"7", r"a\2.png": b"2", r"a\2.cls": b"8"}
    source = source_of(as_tar(tmp_path / "a.tar", files))
    assert source.format == "webdataset"
    assert handed_out(source) == [("a/1.png", "7", b"1"), ("a/2.png", "8", b"2")]


@pytest.mark.parametrize("names", [("A/x.png", r"A\x.png"), (r"B\c\x.png", r"B\\c\x.png")])
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_two_files_that_get_one_name_are_an_error_that_names_it(
    tmp_path: Path, names: tuple[str, str], form: str
) -> None:
    files = dict(zip(names, map(encoded, pictures(2)), strict=True))
    pack = as_zip if form == "zip" else as_tar
    pack(tmp_path / "a.x", files)
    with pytest.raises(SourceError, match="A/x.png|B/c/x.png"):
        build(recipe(tmp_path, {"uri": "a.x"}), engine=LocalEngine(1))


@given(st.lists(st.text("ab\\/é", min_size=1, max_size=8), min_size=1, max_size=6))
def test_a_name_keeps_all_its_other_letters(names: list[str]) -> None:
    raw = [name.encode() for name in names]
    alone = not any("/" in name for name in names)
    encodings = encodings_of(raw, no_slashes=alone)
    for name in raw:
        for mixed in (False, True):
            found = with_slashes(name, mixed=mixed, encodings=encodings, no_slashes=alone)
            assert found in (name, name.replace(b"\\", b"/"))
            assert b"\\" not in found or (b"/" in name and not mixed)


def test_separators_are_told_without_reading_on() -> None:
    def names() -> Iterator[str]:
        yield from ("x/a\\1", "x/a\\2", "x/plain")
        raise AssertionError

    assert are_separators(names()) is False
    assert are_separators(["x/a\\1", "x/b\\2"]) is False
    assert are_separators(["x/a\\1", "README.md", "x/b\\2", "a\\b", "x/a\\3"]) is True
    assert are_separators(["README.md", "a\\1", "a\\2"]) is False
    assert are_separators([]) is False
