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


def heartbeats(root: Path) -> list[str]:
    return sorted(file.name for file in (root / ".writers").iterdir())


def test_a_heartbeat_that_was_never_locked_is_deleted_by_the_next_build(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", DYING, tmp_path], check=False).returncode == -9
    assert len(heartbeats(tmp_path)) == 1
    with registered(str(tmp_path)) as writer:
        assert heartbeats(tmp_path) == [writer.name]
    assert heartbeats(tmp_path) == []


def test_a_heartbeat_that_is_deleted_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = try_lock, list[str]()

    def sweep_first(handle: int, name: object) -> bool:
        if not swept:
            swept.extend(heartbeats(tmp_path))
            with registered(str(tmp_path)) as other:
                assert heartbeats(tmp_path) == [other.name]
        return real(handle, name)

    with monkeypatch.context() as patch:
        (tmp_path / ".writers").mkdir()
        patch.setattr(writers, "try_lock", sweep_first)
        with registered(str(tmp_path)) as writer:
            assert swept == [writer.name]
            assert living_writers(str(tmp_path)) == {writer.name} == set(heartbeats(tmp_path))
            check_registered(writer)


def test_the_heartbeat_is_kept_if_orphan_files_cannot_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next build then deletes them."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(writers, "delete_orphan_files", fail)
        with pytest.raises(LakeError, match="of the work"), registered(str(tmp_path)) as writer:
            raise LakeError("of the work")
    assert heartbeats(tmp_path) == [writer.name]
    assert living_writers(str(tmp_path)) == set()
    with registered(str(tmp_path)) as other:
        assert heartbeats(tmp_path) == [other.name]
