"""`originals = "reference"`: verify looks for the source files, and its advice mends what it finds."""

import os
import shutil
from pathlib import Path

import pytest
from commands import Run
from damaged_lakes import flip
from making import as_folder, as_tar, files_of, recipe

from pipeline.builder.build import build, plan
from pipeline.engines.local import LocalEngine
from pipeline.lake.snapshot import Snapshot
from pipeline.recipe import Recipe
from pipeline.repair import repair
from pipeline.verify import verify

SIZES, BYTES = "referenced files are there, with their size", "referenced files are there, with their bytes"


@pytest.fixture
def made(tmp_path: Path) -> Recipe:
    as_folder(tmp_path / "photos", files_of(8))
    made = recipe(tmp_path, {"uri": "photos"}, decode={"originals": "reference", "longest": 8})
    build(made, engine=LocalEngine(1))
    return made


def found(made: Recipe, *, references: bool = False) -> list[str]:
    return [str(fault) for check in verify(made.root, references=references) for fault in check.faults]


def change_in_place(file: Path) -> None:
    """Change a byte, and keep size and time."""
    before, data = file.stat(), bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_whole_references_pass(made: Recipe) -> None:
    for references, name in ((False, SIZES), (True, BYTES)):
        assert (name, 8, []) in [tuple(check) for check in verify(made.root, references=references)]


def test_a_lake_without_references_has_no_such_check(tmp_path: Path) -> None:
    as_folder(tmp_path / "photos", files_of(2))
    kept = recipe(tmp_path, {"uri": "photos"}, decode={"originals": "keep", "longest": 8})
    build(kept, engine=LocalEngine(1))
    assert not {SIZES, BYTES} & {check.name for check in verify(kept.root, references=True)}


def test_a_file_that_changed_with_its_old_size_and_time_is_found_and_read_again(made: Recipe) -> None:
    change_in_place(made.base / "photos" / "A" / "00000.png")
    assert (found(made), plan(made)) == ([], [])
    (line,) = found(made, references=True)
    assert line == "referenced files have changed, with their old size; 1 image of d/train, from photos: A/00000.png"
    repair(made, engine=LocalEngine(1))
    assert found(made, references=True) == []


def test_missing_and_longer_files_are_found_and_mended(made: Recipe) -> None:
    (made.base / "photos" / "A" / "00000.png").unlink()
    longer = made.base / "photos" / "A" / "00002.png"
    longer.write_bytes(longer.read_bytes() + bytes(10))
    assert found(made) == [
        "referenced files are missing; 1 image of d/train, from photos: A/00000.png",
        "referenced files have another size than when they were read; 1 image of d/train, from photos: A/00002.png",
    ]
    assert repair(made, engine=LocalEngine(1)).images == 7
    assert found(made, references=True) == []


def test_a_source_that_is_not_mounted_is_one_line(made: Recipe, run: Run) -> None:
    (made.base / "photos").rename(made.base / "away")
    (line,) = found(made)
    assert line.startswith(f"the folder {made.base}/photos of referenced files is not there: restore or mount it")
    assert line.endswith("8 images of d/train, from photos")
    done = run("verify", made.root)
    assert done.exit_code == 1
    assert "--repair" not in done.output
    # No image is lost by a repair meanwhile.
    assert "8 originals stay damaged" in " ".join(repair(made, engine=LocalEngine(1)).still_damaged)
    (made.base / "away").rename(made.base / "photos")
    assert run("verify", made.root, "--references").exit_code == 0


def test_where_images_are_damaged_their_files_are_not_looked_for(made: Recipe) -> None:
    (file,) = Snapshot(made.root).file_places("images")
    flip(Path(file), 300)
    assert not [text for text in found(made, references=True) if "referenced files" in text]


def test_an_archive_that_is_gone_is_one_line(tmp_path: Path) -> None:
    as_tar(tmp_path / "photos.tar", files_of(4), "w")
    made = recipe(tmp_path, {"uri": "photos.tar"}, decode={"originals": "reference", "longest": 8})
    build(made, engine=LocalEngine(1))
    assert found(made, references=True) == []
    (tmp_path / "photos.tar").unlink()
    (line,) = found(made)
    assert line.startswith(f"{tmp_path}/photos.tar with referenced files is not there")


def test_shards_of_a_source_share_a_line(made: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.folder._LARGEST", 2)
    shutil.rmtree(made.root)
    assert build(made, engine=LocalEngine(1)).images == 8
    for file in ("A/00000.png", "A/00002.png", "B/00001.png"):
        (made.base / "photos" / file).unlink()
    (line,) = found(made)
    assert "referenced files are missing; 3 images of d/train, from photos: " in line
