"""Files in the folder of heartbeats that no writer made are kept and ignored."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.lake.writers.heartbeats import living_writers, registered
from pipeline.lake.writers.lock import hold_lock

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes with names")
NAME = "0123456789ab"


def folder(path: Path) -> None:
    path.mkdir()
    (path / "note.txt").write_text("a note")


@pytest.mark.parametrize(
    "make",
    [
        folder,
        os.mkfifo,
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("/dev/null"),
    ],
    ids=["folder", "pipe", "dangling link", "loop", "device"],
)
def test_foreign_files_are_kept_and_ignored(tmp_path: Path, make: Callable[[Path], object]) -> None:
    (tmp_path / ".writers").mkdir()
    make(tmp_path / ".writers" / NAME)
    with registered(str(tmp_path)) as writer, hold_lock(str(tmp_path)):
        assert living_writers(str(tmp_path)) == {writer.name}
    assert os.listdir(tmp_path / ".writers") == [NAME]  # noqa: PTH208 - also of a link to nothing


def test_a_file_with_another_name_is_kept(tmp_path: Path) -> None:
    (tmp_path / ".writers").mkdir()
    (tmp_path / ".writers" / "note.txt").write_text("a note")
    with registered(str(tmp_path)):
        pass
    assert (tmp_path / ".writers" / "note.txt").read_text() == "a note"


def test_an_empty_file_with_the_name_of_a_writer_is_the_heartbeat_of_a_dead_one(tmp_path: Path) -> None:
    (tmp_path / ".writers").mkdir()
    (tmp_path / ".writers" / NAME).touch()
    with registered(str(tmp_path)):
        pass
    assert list((tmp_path / ".writers").iterdir()) == []
