"""Law: the walk finds in any archive what `tarfile` finds, member by member, in any buffer."""

import gzip
import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import as_tar, files_of, handed_out, source_of, turned_away

from pipeline.errors import SourceError
from pipeline.sources import read
from pipeline.sources.archives.archive import clean_path
from pipeline.sources.archives.tar_walk import Header, Run, StreamBuffer, walk_headers

Found = list[tuple[str, bytes | None]]
_LETTERS = st.sampled_from("ab/.\\ é\udcff\n")
_NAMES = st.text(_LETTERS, min_size=1, max_size=30) | st.text(st.sampled_from("ab/"), min_size=90, max_size=300)
_KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])


def window_on(data: bytes) -> StreamBuffer:
    return StreamBuffer(io.BytesIO(data), lambda _: None, 2**20)


def walked(data: bytes, *, content: bool) -> Found:
    """Name and content of every member; no content where it is no regular file."""
    buffer, rows = window_on(data), Found()
    for found in walk_headers(buffer, content=content):
        run = found if isinstance(found, Run) else Run([found.name], [found.size], [found.content])
        for name, size, start in zip(*run, strict=True):
            if isinstance(found, Header) and found.kind:
                rows.append((name, None))
                continue
            if content:
                assert buffer.load(start, start + size)
                assert data[start : start + size] == buffer.data[start - buffer.start :][:size]
            rows.append((name, data[start : start + size]))
    return rows


def listed(data: bytes) -> Found:
    """What the standard library finds."""
    rows = Found()
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", errors="surrogateescape") as archive:
        for info in archive:
            regular = info.isreg() and not info.issparse()
            rows.append((info.name, archive.extractfile(info).read() if regular else None))  # type: ignore[union-attr]
    return rows


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Archives in any of the three formats, with and without times in PAX records."""
    out = io.BytesIO()
    form = draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as archive:
        for _ in range(draw(st.integers(0, 8))):
            info = tarfile.TarInfo(draw(_NAMES))
            info.type = draw(_KINDS)
            if info.type == tarfile.AREGTYPE and (info.name.endswith("/") or len(info.name) > 40):
                continue  # where the name ends in a slash it is a folder of the oldest tars, without content
            info.mtime = draw(st.sampled_from([0, 1_700_000_000, 1_700_000_000.25]))
            content = draw(st.binary(max_size=1200))
            info.size = len(content) if info.isreg() else 0
            try:
                archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
            except (ValueError, UnicodeEncodeError):  # the format cannot hold the name
                continue
    data = out.getvalue()
    # Without the padding of the last record, which is long to print.
    return data[: -(-len(data.rstrip(b"\0")) // 512) * 512 + 1024]


@given(archives(), st.booleans(), st.sampled_from([512, 1024, 5000, 2**20]))
@settings(max_examples=75)
def test_the_walk_finds_what_tarfile_finds(data: bytes, content: bool, chunk: int) -> None:  # noqa: FBT001
    with pytest.MonkeyPatch.context() as held:
        held.setattr("pipeline.sources.archives.tar_walk.CHUNK", chunk)
        assert walked(data, content=content) == listed(data)


@given(archives(), st.data())
@settings(max_examples=75)
def test_the_walk_of_damaged_headers_is_that_of_tarfile_or_an_error(data: bytes, more: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(more.draw(st.integers(1, 3))):
        damaged[more.draw(st.integers(0, len(data) - 1))] = more.draw(st.integers(0, 255))
    try:
        found = walked(bytes(damaged), content=True)
    except (tarfile.TarError, ValueError, OSError, AssertionError):
        return
    assert found == listed(bytes(damaged))


@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar")
@pytest.mark.parametrize("form", ["v7", "ustar", "gnu", "oldgnu", "posix"])
def test_archives_of_the_tar_command_are_read(tmp_path: Path, form: str) -> None:
    for path, data in {**files_of(30), **{f"A/{'x' * 90}/{i}": b"1" for i in range(2)}}.items():
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / path).write_bytes(data)
    if form == "v7":
        shutil.rmtree(tmp_path / "in" / "A" / ("x" * 90))
    command = ["tar", f"--format={form}", "-cf", str(tmp_path / "a.tar"), "-C", str(tmp_path / "in"), "."]
    subprocess.run(command, check=True)
    data = (tmp_path / "a.tar").read_bytes()
    assert walked(data, content=True) == listed(data)
    paths = {path for path, _, _ in handed_out(source_of(tmp_path / "a.tar"))}
    assert paths == {str(p.relative_to(tmp_path / "in")) for p in (tmp_path / "in").rglob("*") if p.is_file()}


def test_a_pax_header_of_times_before_every_file_is_no_detour(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for i in range(50):
            info = tarfile.TarInfo(f"A/{i}")
            info.mtime, info.size = 1_700_000_000.5, 3
            archive.addfile(info, io.BytesIO(b"abc"))
    expected = listed((tmp_path / "a.tar").read_bytes())
    monkeypatch.setattr("pipeline.sources.archives.tar_walk._read_with_tarfile", None)
    assert walked((tmp_path / "a.tar").read_bytes(), content=True) == expected
    assert len(expected) == 50


def member(name: str, size: int = 0, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def tar_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_a_name_and_size_in_pax_records_count(tmp_path: Path) -> None:
    info = member("short", 4, pax_headers={"path": "A/é" + "x" * 200, "size": "4"})
    (tmp_path / "a.tar").write_bytes(tar_of((info, b"1234"), (member("B/y", 1), b"5")))
    assert handed_out(source_of(tmp_path / "a.tar")) == [("A/é" + "x" * 200, "A", b"1234"), ("B/y", "B", b"5")]


@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar")
@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_a_sparse_file_is_a_reject_that_says_what_to_do(tmp_path: Path, form: str) -> None:
    (tmp_path / "A").mkdir()
    with (tmp_path / "A" / "holes").open("wb") as file:
        file.truncate(2**20)
        file.seek(2**19)
        file.write(b"x")
    (tmp_path / "A" / "z").write_bytes(b"end")
    subprocess.run(["tar", "-S", f"--format={form}", "-cf", "a.tar", "A/holes", "A/z"], cwd=tmp_path, check=True)
    source = source_of(tmp_path / "a.tar")
    assert handed_out(source) == [("A/z", "A", b"end")]
    (refused,) = turned_away(source)
    assert refused.reason == "not_a_file"
    assert "sparse" in refused.detail


@given(st.text(st.sampled_from("ab./"), min_size=1, max_size=12))
def test_a_path_is_cleaned_as_unpacking_would(name: str) -> None:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    assert clean_path(name) == "/".join(parts)


def test_no_label_is_called_like_the_way_up(tmp_path: Path) -> None:
    source = source_of(as_tar(tmp_path / "a.tar", {"A/../x.png": b"1", "../../B/y.png": b"2"}))
    assert [(path, label) for path, label, _ in handed_out(source)] == [("A/../x.png", None), ("../../B/y.png", "B")]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_cut_archive_keeps_what_comes_before_where_the_recipe_says_so(tmp_path: Path, mode: str) -> None:
    files = {f"A/{i}.png": os.urandom(3000) for i in range(400)}
    whole = as_tar(tmp_path / "whole", files, mode).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(SourceError, match='truncated = "keep"'):
        handed_out(source_of(tmp_path / "cut.tar"))
    kept = source_of(tmp_path / "cut.tar", truncated="keep")
    rows = handed_out(kept)
    assert [(path, data) for path, _, data in rows] == list(files.items())[: len(rows)]
    assert 150 < len(rows) < 300
    (refused,) = turned_away(kept)
    assert (refused.path, refused.reason, refused.file_size) == ("cut.tar", "truncated", len(whole) * 2 // 3)
    assert "the rest is lost" in refused.detail


def test_a_plain_archive_is_read_by_workers_from_its_places(tmp_path: Path) -> None:
    files = files_of(20)
    source = source_of(as_tar(tmp_path / "a.tar", files, "w"))
    shards = list(read(source))
    assert handed_out(source) == [(path, path[0], data) for path, data in files.items()]
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(SourceError, match="was truncated during the build"):
        shards[0].contents.make()  # type: ignore[union-attr]


def zeros(file: Path) -> Path:
    files = {f"A/{i}": bytes(2**20) for i in range(10)}
    if file.suffix != ".zip":
        return as_tar(file, files)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_an_archive_that_unpacks_to_far_too_much_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("pipeline.sources.archives.archive._HARMLESS_BYTES", 2**22)
    source = source_of(zeros(tmp_path / name))
    with pytest.raises(SourceError, match="^[^:]*: the archive .* decompression bomb"):
        handed_out(source)
    if not name.endswith("zip"):
        with pytest.raises(SourceError, match="decompression bomb"):
            handed_out(source_of(tmp_path / name, truncated="keep"))
    monkeypatch.setattr("pipeline.sources.archives.archive._HARMLESS_BYTES", 2**30)
    assert len(handed_out(source)) == 10


def test_padding_without_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.archives.archive._HARMLESS_BYTES", 2**22)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_of((member("A/x", 1), b"1")) + bytes(2**24)))
    with pytest.raises(SourceError, match="decompression bomb"):
        handed_out(source_of(tmp_path / "a.tar.gz"))


def test_a_header_that_asks_for_all_memory_is_an_error(tmp_path: Path) -> None:
    info = member("x", 2**32, type=tarfile.XHDTYPE)
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**15))
    with pytest.raises(SourceError, match="damaged or cut short"):
        handed_out(source_of(tmp_path / "a.tar", format="tar"))
