"""Heartbeats of writers in a folder, between their creation and their lock."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import LakeError
from pipeline.lake.writers import heartbeats as writers
from pipeline.lake.writers.heartbeats import check_registered, living_writers, registered
from pipeline.storage.atomic import try_lock

# A writer that is killed when its heartbeat is created and not locked yet.
DYING = """
import os, sys
from pathlib import Path
from pipeline.lake.writers import heartbeats
from pipeline.storage.atomic import try_lock
from pipeline.lake.writers.heartbeats import registered
heartbeats.try_lock = lambda *_: os.kill(os.getpid(), 9)
with registered(sys.argv[1]):
    pass
"""


def marks(root: Path) -> list[str]:
    return sorted(file.name for file in (root / ".writers").iterdir())


def test_a_heartbeat_that_was_never_locked_goes_with_the_next_build(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", DYING, tmp_path], check=False).returncode == -9
    assert len(marks(tmp_path)) == 1
    with registered(str(tmp_path)) as writer:
        assert marks(tmp_path) == [writer.name]
    assert marks(tmp_path) == []


def test_a_mark_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = try_lock, list[str]()

    def sweep_first(handle: int, name: object) -> bool:
        if not swept:
            swept.extend(marks(tmp_path))
            with registered(str(tmp_path)) as other:
                assert marks(tmp_path) == [other.name]
        return real(handle, name)

    with monkeypatch.context() as patch:
        (tmp_path / ".writers").mkdir()
        patch.setattr(writers, "try_lock", sweep_first)
        with registered(str(tmp_path)) as writer:
            assert swept == [writer.name]
            assert living_writers(str(tmp_path)) == {writer.name} == set(marks(tmp_path))
            check_registered(writer)


def test_the_mark_of_work_whose_leftovers_cannot_be_deleted_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the next build deletes them."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(writers, "delete_orphan_files", fail)
        with pytest.raises(LakeError, match="of the work"), registered(str(tmp_path)) as writer:
            raise LakeError("of the work")
    assert marks(tmp_path) == [writer.name]
    assert living_writers(str(tmp_path)) == set()
    with registered(str(tmp_path)) as other:
        assert marks(tmp_path) == [other.name]
