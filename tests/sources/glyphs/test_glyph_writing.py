"""Class folders and archives: the same files either way, whole or not at all."""

import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import SourceError
from pipeline.sources.glyphs import RenderedBlock, blocks, plan_glyphs, render, write_folders, write_tar

PLAN = plan_glyphs(200, seed=8)


def rendered(split: str = "train", size: int = 64) -> Iterator[RenderedBlock]:
    return map(render, blocks(PLAN, split, size))


def contents(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def interrupted() -> Iterator[RenderedBlock]:
    yield next(rendered())
    raise KeyboardInterrupt


def files_of(directory: Path) -> dict[str, bytes]:
    return {
        file.relative_to(directory).as_posix(): file.read_bytes() for file in directory.rglob("*") if file.is_file()
    }


def test_folders_and_archive_hold_the_same_files(tmp_path: Path) -> None:
    assert write_folders(tmp_path / "new" / "folders", rendered()) == 200
    assert write_tar(tmp_path / "new" / "a.tar.gz", rendered(), "glyphs_large") == 200
    with tarfile.open(tmp_path / "new" / "a.tar.gz") as archive:
        members = {member.name: contents(archive, member) for member in archive}
    expected = {path: data for block in rendered() for path, data in zip(block.paths, block.data, strict=True)}
    assert files_of(tmp_path / "new" / "folders") == expected
    assert members == {f"glyphs_large/{path}": data for path, data in expected.items()}


def test_archives_of_one_seed_are_the_same_bytes(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar.gz", rendered(size=64), "glyphs")
    write_tar(tmp_path / "b.tar.gz", rendered(size=11), "glyphs")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_an_archive_is_a_whole_number_of_tar_records(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar.gz", rendered("test"), "glyphs")
    content = gzip.decompress((tmp_path / "a.tar.gz").read_bytes())
    assert len(content) % tarfile.RECORDSIZE == 0
    assert content.endswith(bytes(1024))


def test_members_carry_no_trace_of_the_machine(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar.gz", rendered("test"), "glyphs")
    with tarfile.open(tmp_path / "a.tar.gz") as archive:
        seen = {(m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime, m.isfile()) for m in archive}
    assert seen == {(0o644, 0, 0, "", "", 1_315_440_000, True)}


def test_a_stopped_run_leaves_nothing_under_the_final_name_and_the_next_one_succeeds(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_tar(tmp_path / "a.tar.gz", interrupted(), "glyphs")
    with pytest.raises(KeyboardInterrupt):
        write_folders(tmp_path / "folders", interrupted())
    assert not (tmp_path / "a.tar.gz").exists()
    assert not (tmp_path / "folders").exists()
    assert write_tar(tmp_path / "a.tar.gz", rendered(), "glyphs") == 200
    assert write_folders(tmp_path / "folders", rendered()) == 200
    assert len(files_of(tmp_path / "folders")) == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "folders"]


def test_folders_go_into_an_empty_folder_but_never_over_files(tmp_path: Path) -> None:
    assert write_folders(tmp_path, rendered("test")) == len(PLAN.span("test"))
    with pytest.raises(SourceError, match="is not empty. Delete it or name another folder"):
        write_folders(tmp_path, rendered())
