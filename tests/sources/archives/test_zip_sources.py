"""Zip archives: like tar, in the order of their directory."""

import stat
import struct
import zipfile
from pathlib import Path

import pytest
from making import as_zip, files_of, handed_out, source_of, turned_away

from pipeline.errors import SourceError

# A local header, a directory entry and an end record hold the flags at these places.
_LOCAL_FLAGS, _ENTRY_FLAGS, _END_COUNT = 6, 8, 10


def altered(file: Path, magic: bytes, offset: int, value: int) -> Path:
    """Overwrite two bytes of the last record that starts with a magic."""
    data = bytearray(file.read_bytes())
    at = data.rfind(magic) + offset
    data[at : at + 2] = struct.pack("<H", value)
    file.write_bytes(data)
    return file


def test_files_come_in_the_order_of_the_directory(tmp_path: Path) -> None:
    files = {**files_of(12), "top.png": b"x", "./set//C/x.png": b"y"}
    source = source_of(as_zip(tmp_path / "a.bin", files))
    assert source.format == "zip"
    rows = handed_out(source)
    assert rows[:12] == [(path, path[0], data) for path, data in files_of(12).items()]
    assert rows[12:] == [("top.png", None, b"x"), ("set/C/x.png", "C", b"y")]


def test_names_are_only_text(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    source = source_of(as_zip(tmp_path / "in" / "a.zip", {"../../x.png": b"1", "/etc/y.png": b"2"}))
    before = sorted(tmp_path.rglob("*"))
    assert [path for path, _, _ in handed_out(source)] == ["../../x.png", "etc/y.png"]
    assert sorted(tmp_path.rglob("*")) == before


def test_links_are_rejects_and_folders_are_nothing(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("A/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("A")
        archive.writestr(link, "/etc/passwd")
        archive.writestr("A/x.png", b"1")
    source = source_of(tmp_path / "a.zip")
    assert handed_out(source) == [("A/x.png", "A", b"1")]
    detail = "a symbolic link to /etc/passwd: links of an archive are not followed"
    assert [(r.path, r.reason, r.detail) for r in turned_away(source)] == [("A/link.png", "not_a_file", detail)]


def test_a_file_above_max_bytes_is_a_reject(tmp_path: Path) -> None:
    source = source_of(as_zip(tmp_path / "a.zip", {"A/x": bytes(10), "A/y": bytes(11)}), decode={"max_bytes": 10})
    assert [path for path, _, _ in handed_out(source)] == ["A/x"]
    assert [(r.path, r.reason) for r in turned_away(source)] == [("A/y", "too_large")]


def test_an_archive_without_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no files"):
        handed_out(source_of(as_zip(tmp_path / "a.zip", {})))


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.999])
def test_a_cut_archive_is_an_error(tmp_path: Path, keep: float) -> None:
    file = as_zip(tmp_path / "a.zip", files_of(20))
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(SourceError, match="damaged or cut short"):
        handed_out(source_of(file))


def test_a_broken_directory_is_an_error(tmp_path: Path) -> None:
    file = altered(as_zip(tmp_path / "a.zip", files_of(4)), b"PK\1\2", 0, 0)
    with pytest.raises(SourceError, match="damaged or cut short"):
        handed_out(source_of(file))


def test_a_directory_that_lists_fewer_files_than_the_end_says_is_an_error(tmp_path: Path) -> None:
    file = altered(as_zip(tmp_path / "a.zip", files_of(4)), b"PK\5\6", _END_COUNT, 5)
    with pytest.raises(SourceError, match="lists 4 files where its end says 5"):
        handed_out(source_of(file))


def test_a_password_is_an_error_that_says_so(tmp_path: Path) -> None:
    file = as_zip(tmp_path / "a.zip", {"A/x.png": b"12345"})
    altered(altered(file, b"PK\1\2", _ENTRY_FLAGS, 1), b"PK\3\4", _LOCAL_FLAGS, 1)
    with pytest.raises(SourceError, match=r"cannot be unpacked \(.*password.*unpack it with another tool") as caught:
        handed_out(source_of(file))
    assert "\n" not in str(caught.value)


def test_a_name_that_says_utf8_and_is_not_is_an_error(tmp_path: Path) -> None:
    file = as_zip(tmp_path / "a.zip", {"A/é.png": b"1"})
    file.write_bytes(file.read_bytes().replace("é".encode(), b"\xff\xfe"))
    with pytest.raises(SourceError, match="damaged or cut short"):
        handed_out(source_of(file))


@pytest.mark.parametrize("told", [0, 3])
def test_a_member_longer_than_its_entry_says_is_an_error(tmp_path: Path, told: int) -> None:
    file = altered(as_zip(tmp_path / "a.zip", {"A/x.png": b"123456"}), b"PK\1\2", 24, told)
    with pytest.raises(SourceError, match="CRC"):
        handed_out(source_of(file))
