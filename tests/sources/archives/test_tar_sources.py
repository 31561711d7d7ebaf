"""Tar archives: every file once, by a name that is only text, and nothing on disk."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from making import as_tar, files_of, handed_out, source_of, turned_away

from pipeline.errors import SourceError
from pipeline.shard import Reject
from pipeline.sources import read, survey


def tar_of(file: Path, *entries: tarfile.TarInfo | str, form: int = tarfile.GNU_FORMAT) -> Path:
    """Write entries as they are; a plain string is a file that holds its own name."""
    with tarfile.open(file, "w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for entry in entries:
            if isinstance(entry, str):
                data = entry.encode("utf-8", "surrogateescape")
                info = tarfile.TarInfo(entry)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            else:
                archive.addfile(entry)
    return file


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def names(rows: Iterable[tuple[str, str | None, object]]) -> list[tuple[str, str | None]]:
    return [(path, label) for path, label, _ in rows]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_compression_hands_out_the_same_files_in_order(tmp_path: Path, mode: str) -> None:
    files = files_of(12)
    source = source_of(as_tar(tmp_path / "a.bin", files, mode))
    assert source.format == "tar"
    assert handed_out(source) == [(path, path[0], data) for path, data in files.items()]


def test_shards_are_cut_by_count_and_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"A/{i}": bytes(10) for i in range(10)}
    source = source_of(as_tar(tmp_path / "a.tar", files))
    monkeypatch.setattr("pipeline.sources.archives.archive.IMAGES_PER_SHARD", 4)
    shards = list(read(source))
    assert [len(shard) for shard in shards] == [4, 4, 2]
    assert {shard.fingerprint for shard in shards} == {survey(source).fingerprint}
    assert [s.shard for s in read(source, {shards[1].shard})] == [shards[1].shard]
    monkeypatch.setattr("pipeline.sources.archives.archive.BYTES_PER_SHARD", 25)
    assert [len(shard) for shard in read(source)] == [3, 3, 3, 1]


def test_the_label_is_the_folder_that_holds_the_file(tmp_path: Path) -> None:
    file = tar_of(tmp_path / "a.tar", "top.png", "A/x.png", "set/train/B/x.png")
    assert names(handed_out(source_of(file))) == [("top.png", None), ("A/x.png", "A"), ("set/train/B/x.png", "B")]


@pytest.mark.parametrize(
    ("name", "path", "label"),
    [
        ("./A/x.png", "A/x.png", "A"),
        ("././A//x.png", "A/x.png", "A"),
        ("/etc/x.png", "etc/x.png", "etc"),
        ("/x.png", "x.png", None),
        ("../../A/x.png", "../../A/x.png", "A"),
        ("A/" + 200 * "long" + "/x.png", "A/" + 200 * "long" + "/x.png", 200 * "long"),
        ("A/é-\udcff.png", "A/é-\\xff.png", "A"),
    ],
)
def test_names_are_only_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, path: str, label: str | None
) -> None:
    (tmp_path / "in" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "in" / "work")
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        source = source_of(tar_of(tmp_path / "in" / "a.tar", name, form=form))
        before = sorted(tmp_path.rglob("*"))
        assert handed_out(source) == [(path, label, name.encode("utf-8", "surrogateescape"))]
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("kind", "detail"),
    [
        (tarfile.SYMTYPE, "a symbolic link to A/x.png: links of an archive are not followed"),
        (tarfile.FIFOTYPE, "a device or pipe in the archive"),
        (tarfile.CHRTYPE, "a device or pipe in the archive"),
        (tarfile.BLKTYPE, "a device or pipe in the archive"),
        (b"Z", "a device or pipe in the archive"),
    ],
)
def test_symbolic_links_and_devices_are_rejects(tmp_path: Path, kind: bytes, detail: str) -> None:
    source = source_of(tar_of(tmp_path / "a.tar", "A/x.png", entry("A/odd", kind, "A/x.png"), "B/y.png"))
    assert names(handed_out(source)) == [("A/x.png", "A"), ("B/y.png", "B")]
    assert turned_away(source) == [Reject("A/odd", "A", "not_a_file", detail, 0)]


def test_folders_are_no_files(tmp_path: Path) -> None:
    file = tar_of(tmp_path / "a.tar", entry("A", tarfile.DIRTYPE), "A/x.png", entry("empty", tarfile.DIRTYPE))
    source = source_of(file)
    assert names(handed_out(source)) == [("A/x.png", "A")]
    assert turned_away(source) == []


def test_a_path_that_occurs_twice_is_handed_out_twice(tmp_path: Path) -> None:
    # What stops the build is the check for equal ids at commit: here nothing may be dropped.
    assert names(handed_out(source_of(tar_of(tmp_path / "a.tar", "A/x.png", "A/x.png")))) == [("A/x.png", "A")] * 2


def test_files_above_max_bytes_are_rejects_that_are_not_read(tmp_path: Path) -> None:
    file = as_tar(tmp_path / "a.tar.gz", {"A/small": bytes(10), "A/large": bytes(11), "A/last": b"x"})
    source = source_of(file, decode={"max_bytes": 10})
    assert [path for path, _, _ in handed_out(source)] == ["A/small", "A/last"]
    assert [(r.path, r.reason, r.file_size) for r in turned_away(source)] == [("A/large", "too_large", 11)]


def test_an_empty_file_is_handed_out_for_the_decoder_to_judge(tmp_path: Path) -> None:
    assert handed_out(source_of(as_tar(tmp_path / "a.tar", {"A/x.png": b""}))) == [("A/x.png", "A", b"")]


@pytest.mark.parametrize("entries", [(), (entry("A", tarfile.DIRTYPE),)])
def test_an_archive_without_files_is_an_error(tmp_path: Path, entries: tuple[tarfile.TarInfo, ...]) -> None:
    with pytest.raises(SourceError, match="holds no files"):
        handed_out(source_of(tar_of(tmp_path / "a.tar", *entries)))


def test_the_survey_changes_with_the_file_and_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(as_tar(tmp_path / "a.tar.gz", files_of(2)))
    with monkeypatch.context() as held:
        held.setattr("io.open", None)
        first = survey(source)
    assert first == survey(source)
    as_tar(tmp_path / "a.tar.gz", files_of(3))
    assert survey(source).fingerprint != first.fingerprint
