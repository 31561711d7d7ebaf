"""Hard links of a tar are files like those that they lead to, in plain and packed archives."""

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import as_folder, encoded, handed_out, pictures, source_of, turned_away

from pipeline.errors import SourceError
from pipeline.sources import read

MODES = ["w", "w:gz", "w:xz"]
Entry = tuple[str, bytes | str]


def tar_of(file: Path, entries: list[Entry], mode: str = "w") -> Path:
    """Write files, and hard links where the content is text: the name that the link leads to."""
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload] # a mode that is not a literal
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.LNKTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return file


def refused(file: Path, **part: Any) -> list[tuple[str, str | None, str, str]]:
    return [(item.path, item.label, item.reason, item.detail) for item in turned_away(source_of(file, **part))]


@pytest.mark.parametrize("mode", MODES)
def test_a_linked_file_is_one_of_its_own_class(tmp_path: Path, mode: str) -> None:
    entries: list[Entry] = [
        ("cat/1.png", b"1"),
        ("both/1.png", "cat/1.png"),
        ("dog/2.png", b"22"),
        ("./set//both/2.png", "./dog/2.png"),
        ("more/1.png", "cat/1.png"),
        ("last/3.png", b"333"),
    ]
    source = source_of(tar_of(tmp_path / "a.tar", entries, mode))
    assert handed_out(source) == [
        ("cat/1.png", "cat", b"1"),
        ("dog/2.png", "dog", b"22"),
        ("last/3.png", "last", b"333"),
        ("both/1.png", "both", b"1"),
        ("more/1.png", "more", b"1"),
        ("set/both/2.png", "both", b"22"),
    ]
    assert turned_away(source) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_chain_of_links_leads_to_the_file(tmp_path: Path, mode: str) -> None:
    entries: list[Entry] = [("a/1", b"x"), ("b/1", "a/1"), ("c/1", "b/1"), ("d/1", "c/1")]
    rows = handed_out(source_of(tar_of(tmp_path / "a.tar", entries, mode)))
    assert rows == [("a/1", "a", b"x"), ("b/1", "b", b"x"), ("c/1", "c", b"x"), ("d/1", "d", b"x")]


@pytest.mark.parametrize("mode", MODES)
def test_a_link_to_nothing_before_it_is_a_reject_that_names_it(tmp_path: Path, mode: str) -> None:
    entries: list[Entry] = [
        ("a/1", b"x"),
        ("b/itself", "b/itself"),
        ("b/gone", "a/gone"),
        ("b/outside", "../../etc/passwd"),
        ("b/later", "c/2"),
        ("b/ring", "b/gnir"),
        ("b/gnir", "b/ring"),
        ("c/2", b"y"),
        ("c/3", "c/2"),
    ]
    file = tar_of(tmp_path / "a.tar", entries, mode)
    assert [path for path, *_ in handed_out(source_of(file))] == ["a/1", "c/2", "c/3"]
    why = "which does not stand before it in the archive"
    assert refused(file) == [
        (name, "b", "not_a_file", f"a hard link to {target!s}, {why}")
        for name, target in entries
        if name.startswith("b/")
    ]


@pytest.mark.parametrize("mode", MODES)
def test_a_link_is_turned_away_for_what_is_wrong_with_its_file(tmp_path: Path, mode: str) -> None:
    entries: list[Entry] = [("a/large", bytes(30)), ("b/large", "a/large"), ("a/small", b"x"), ("b/._x", "a/small")]
    source = source_of(tar_of(tmp_path / "a.tar", entries, mode), decode={"max_bytes": 20})
    assert [path for path, *_ in handed_out(source)] == ["a/small"]
    items = [(item.path, item.label, item.reason, item.file_size) for item in turned_away(source)]
    assert sorted(items) == [
        ("a/large", "a", "too_large", 30),
        ("b/._x", "b", "system_file", 0),
        ("b/large", "b", "too_large", 30),
    ]


@pytest.mark.parametrize("mode", MODES)
def test_a_link_into_a_hidden_folder_is_read(tmp_path: Path, mode: str) -> None:
    # As DVC and git-annex link what they keep.
    entries: list[Entry] = [(".dvc/cache/ab/cd", b"x"), ("cat/1.png", ".dvc/cache/ab/cd"), (".git/y", "cat/1.png")]
    file = tar_of(tmp_path / "a.tar", entries, mode)
    assert handed_out(source_of(file)) == [("cat/1.png", "cat", b"x")]
    assert [(path, reason) for path, _, reason, _ in refused(file)] == [
        (".dvc/cache/ab/cd", "system_file"),
        (".git/y", "system_file"),
    ]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_links_of_a_cut_archive_are_kept_where_the_recipe_says_so(tmp_path: Path, mode: str) -> None:
    entries: list[Entry] = [("a/1", b"x"), ("b/1", "a/1"), *((f"c/{n}", os.urandom(3000)) for n in range(400))]
    whole = tar_of(tmp_path / "whole", entries, mode).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(SourceError, match="damaged or cut short"):
        handed_out(source_of(tmp_path / "cut.tar"))
    rows = handed_out(source_of(tmp_path / "cut.tar", truncated="keep"))
    assert (rows[0], rows[-1]) == (("a/1", "a", b"x"), ("b/1", "b", b"x"))
    assert [(path, reason) for path, _, reason, _ in refused(tmp_path / "cut.tar", truncated="keep")] == [
        ("cut.tar", "truncated")
    ]


def test_links_that_make_far_too_much_of_a_file_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.archives.archive._HARMLESS_BYTES", 2**22)
    entries: list[Entry] = [("a/1", os.urandom(2**10)), *((f"b/{n}", "a/1") for n in range(100))]
    source = source_of(tar_of(tmp_path / "a.tar.xz", entries, "w:xz"))
    assert len(handed_out(source)) == 101
    monkeypatch.setattr("pipeline.sources.archives.archive._HARMLESS_BYTES", 2**16)
    monkeypatch.setattr("pipeline.sources.archives.archive._MAX_RATIO", 1)
    with pytest.raises(SourceError, match="decompression bomb"):
        handed_out(source)


def test_links_are_of_the_shards_as_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries: list[Entry] = [*((f"a/{n}", b"x") for n in range(3)), *((f"b/{n}", f"a/{n}") for n in range(3))]
    source = source_of(tar_of(tmp_path / "a.tar", entries))
    monkeypatch.setattr("pipeline.sources.archives.archive.IMAGES_PER_SHARD", 4)
    shards = list(read(source))
    assert [shard.paths for shard in shards] == [("a/0", "a/1", "a/2", "b/0"), ("b/1", "b/2")]
    assert [shard.paths for shard in read(source, {shards[1].shard})] == [("b/1", "b/2")]


def test_in_a_webdataset_a_link_is_a_reject_that_says_what_to_do(tmp_path: Path) -> None:
    png = encoded(pictures(1)[0])
    entries: list[Entry] = [
        ("1.png", png),
        ("1.cls", b"7"),
        ("2.png", "1.png"),
        ("2.cls", b"8"),
        ("3.png", png),
        ("3.cls", "1.cls"),
    ]
    file = tar_of(tmp_path / "a.tar", entries)
    assert [(path, label) for path, label, _ in handed_out(source_of(file))] == [("1.png", "7")]
    detail = "a hard link to {}: not read in a WebDataset. Pack it anew without links"
    assert refused(file) == [
        ("2.png", "8", "not_a_file", detail.format("1.png")),
        ("3.png", None, "bad_row", f"3.cls: {detail.format('1.cls')}"),
    ]


def test_the_tar_command_makes_of_a_folder_what_the_folder_is(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "in", {"cat/1.png": b"1", "dog/2.png": b"2", "x" * 120 + "/3.png": b"3"})
    for name, target in (
        ("both/1.png", "cat/1.png"),
        ("both/2.png", "dog/2.png"),
        ("y" * 120 + "/3.png", "x" * 120 + "/3.png"),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        os.link(folder / target, folder / name)
    for form in ("gnu", "posix"):
        subprocess.run(["tar", f"--format={form}", "-cf", "a.tar", "-C", "in", "."], cwd=tmp_path, check=True)
        rows = handed_out(source_of(tmp_path / "a.tar"))
        expected = [(path, label, Path(name).read_bytes()) for path, label, name in handed_out(source_of(folder))]
        assert sorted(rows) == expected


_NAMES = st.sampled_from(["a/1", "a/2", "b/1", "./b/2", "c/1", "c//2"])


@given(st.lists(st.tuples(_NAMES, st.binary(max_size=3) | _NAMES), max_size=7), st.sampled_from(["w", "w:gz"]))
@settings(max_examples=60)
def test_links_hold_what_tarfile_finds(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Entry], mode: str
) -> None:
    # Two files of one path are an error of the build.
    unique = list({os.path.normpath(name): (name, content) for name, content in reversed(entries)}.values())[::-1]
    if not unique:
        return
    file = tar_of(tmp_path_factory.mktemp("tar") / "a.tar", unique, mode)
    expected: dict[str, bytes] = {}
    with tarfile.open(file) as archive:
        for info in archive:
            try:
                content = archive.extractfile(info)
            except (KeyError, RecursionError):
                continue
            expected[os.path.normpath(info.name)] = content.read() if content else b""
    source = source_of(file, format="tar")
    found = {path: data for path, _, data in handed_out(source)}
    assert found == expected
    assert {item.path for item in turned_away(source)} == {os.path.normpath(name) for name, _ in unique} - set(expected)
