"""Marks of writers in a folder, in the moments between: made and not locked yet, locked and not named yet."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import LakeError
from pipeline.lake.writers import heartbeats as writers
from pipeline.lake.writers.heartbeats import living, registered, still_registered

# A writer that is killed when its mark is locked and has no name yet.
DYING = """
import os, sys
from pathlib import Path
from pipeline.lake.writers import registered
Path.rename = lambda *_: os.kill(os.getpid(), 9)
with registered(sys.argv[1]):
    pass
"""


def marks(root: Path) -> list[str]:
    return sorted(file.name for file in (root / ".writers").iterdir())


def test_a_mark_that_never_got_its_name_goes_with_the_next_build(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", DYING, tmp_path], check=False).returncode == -9
    assert [name[0] for name in marks(tmp_path)] == ["."]
    with registered(str(tmp_path)) as name:
        assert marks(tmp_path) == [name]
    assert marks(tmp_path) == []


def test_a_mark_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = fcntl.flock, list[str]()

    def sweep_first(handle: int, how: int) -> None:
        if not swept:
            swept.extend(marks(tmp_path))
            with registered(str(tmp_path)) as other:
                assert marks(tmp_path) == [other]
        real(handle, how)

    with monkeypatch.context() as patch:
        (tmp_path / ".writers").mkdir()
        patch.setattr(fcntl, "flock", sweep_first)
        with registered(str(tmp_path)) as name:
            assert swept == [f".{name}"]
            assert living(str(tmp_path)) == {name} == set(marks(tmp_path))
            still_registered(str(tmp_path))


def test_the_mark_of_work_whose_leftovers_cannot_be_deleted_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the next build deletes them."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(writers, "delete_leftovers", fail)
        with pytest.raises(LakeError, match="of the work"), registered(str(tmp_path)) as name:
            raise LakeError("of the work")
    assert marks(tmp_path) == [name]
    assert living(str(tmp_path)) == set()
    with registered(str(tmp_path)) as other:
        assert marks(tmp_path) == [other]
