"""Files of a lake that cannot be used, for a reason of the file system: every read names the file, the reason, and what
to do, and `verify` lists it.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from other_user import folder_for_all, somebody_else

from pipeline import storage
from pipeline.builder.publish import write_report
from pipeline.cli.failures import failure
from pipeline.errors import DamagedLakeError, LakeError
from pipeline.lake_handle import Lake
from pipeline.maintenance import vacuum
from pipeline.recipe import read_recipe
from pipeline.verify import verify

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has other files")

PERMISSION = "Permission denied.*Give this user permission"
IN_PLACE = "A folder is in the place of a file, or a file in that of a folder: move it away"
LOOP = "Too many levels of symbolic links.*A symbolic link points to itself"
PIPE = "a pipe, socket or device.*move it away"


def first_file(root: Path) -> Path:
    return min((root / "images").rglob("*.parquet"))


def images(root: Path) -> Path:
    return root / "images"


def log(root: Path) -> Path:
    return root / "images" / "_delta_log"


def newest_commit(root: Path) -> Path:
    return max(log(root).glob("*.json"))


def checkpoint_pointer(root: Path) -> Path:
    return log(root) / "_last_checkpoint"


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def lock_up(path: Path) -> None:
    path.chmod(0)


def loop(path: Path) -> None:
    remove(path)
    path.symlink_to(path.name)


def put_file(path: Path) -> None:
    remove(path)
    path.write_text("a note")


def put_folder(path: Path) -> None:
    remove(path)
    path.mkdir()


def put_pipe(path: Path) -> None:
    remove(path)
    os.mkfifo(path)


@pytest.fixture
def lake(small_lake: Lake) -> Iterator[Path]:
    with folder_for_all() as folder:
        root = folder / "lake"
        shutil.copytree(small_lake.root, root)
        yield root


@pytest.mark.quick_cases(6)
@pytest.mark.parametrize(
    ("where", "change", "text"),
    [
        (first_file, lock_up, PERMISSION),
        (images, lock_up, PERMISSION),
        (log, lock_up, PERMISSION),
        (newest_commit, lock_up, PERMISSION),
        (first_file, loop, LOOP),
        (images, loop, LOOP),
        (images, put_file, IN_PLACE),
        (log, put_file, IN_PLACE),
        (first_file, put_folder, IN_PLACE),
        (first_file, put_pipe, PIPE),
        (checkpoint_pointer, put_pipe, PIPE),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_reason_and_advice(
    lake: Path, where: Callable[[Path], Path], change: Callable[[Path], object], text: str
) -> None:
    change(where(lake))
    opened = Lake(lake)
    reads: list[Callable[[], object]] = [
        lambda: opened.scan("images").collect(),
        lambda: opened.sql("select count(*) from images").fetchall(),
        lambda: opened.arrays("main", "train"),
    ]
    named = f"{where(lake) if where is first_file else images(lake)}.*{text}"
    with somebody_else():
        for read in reads:
            with pytest.raises(LakeError, match=named) as raised:
                read()
            assert "\n" not in str(raised.value)
        listed = [str(fault) for check in verify(str(lake)) for fault in check.faults]
    assert any(str(images(lake)) in fault for fault in listed)


@pytest.mark.parametrize("change", [lock_up, loop, put_file])
def test_unusable_releases_are_an_error_too(lake: Path, change: Callable[[Path], object]) -> None:
    change(lake / "releases")
    with somebody_else():
        with pytest.raises(LakeError, match="releases"):
            Lake(lake)
        assert any(check.faults for check in verify(str(lake)))


@pytest.mark.parametrize("change", [loop, put_file])
def test_what_is_no_folder_is_no_whole_lake(lake: Path, change: Callable[[Path], object]) -> None:
    change(lake)
    assert any(check.faults for check in verify(str(lake)))


def test_vacuum_names_the_file_too(lake: Path) -> None:
    loop(first_file(lake))
    with pytest.raises(LakeError, match=f"Nothing of this table was deleted.*{LOOP.partition('.*')[2]}"):
        vacuum(str(lake), older_than_hours=0, dry_run=False)


@pytest.mark.parametrize(("change", "text"), [(lock_up, PERMISSION), (put_folder, IN_PLACE), (put_pipe, PIPE)])
def test_a_recipe_that_cannot_be_read_is_named(lake: Path, change: Callable[[Path], object], text: str) -> None:
    file = lake / "recipe.toml"
    file.write_text("")
    change(file)
    with somebody_else(), pytest.raises(ValueError, match=f"{file}: the recipe cannot be read .*{text}"):
        read_recipe(file)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "report.html")
    for read in (storage.read, lambda name: storage.read_start(name, 9), storage.open_parquet):
        with pytest.raises(OSError, match="a pipe, socket or device") as raised:
            read(str(tmp_path / "report.html"))
        found = failure(raised.value)
        assert found is not None
        assert found.line.startswith(f"imagelake: {tmp_path / 'report.html'}: a pipe, socket or device. ")


@pytest.mark.parametrize("table", ["index", "clusters", "images"])
def test_a_truncated_file_is_named(small_lake: Lake, tmp_path: Path, table: str) -> None:
    root = tmp_path / "lake"
    shutil.copytree(small_lake.root, root)
    file = min((root / table).rglob("*.parquet"))
    os.truncate(file, file.stat().st_size // 2)
    reads: list[Callable[[], object]] = [
        lambda: Lake(root).scan(table).collect(),
        lambda: write_report(Lake(root), tmp_path / "report.html"),
    ]
    for read in reads:
        with pytest.raises(DamagedLakeError, match=f"{file}: cannot be read .not a whole Parquet file.*--repair"):
            read()
