import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.decode import decode_images
from pipeline.errors import DamagedLakeError, LimitError, SourceError
from pipeline.limits import limit_error
from pipeline.recipe import DecodePart
from pipeline.shard import Encoded, Files
from pipeline.storage import damage_errors, disk_full_errors


def caused_by(error: BaseException) -> SourceError:
    found = SourceError("data.tar: cannot be read. Check the path.")
    found.__cause__ = error
    return found


@pytest.mark.parametrize(
    ("error", "option"),
    [
        (OSError(errno.EMFILE, "Too many open files", "a.png"), "too many files are open (a.png)"),
        (RuntimeError("IO error: Too many open files (os error 24)"), "too many files"),
        (OSError(errno.EFBIG, "File too large"), "a file would be larger"),
        (RuntimeError("can't start new thread"), "no more processes or threads"),
        (MemoryError(), "not enough memory"),
        (ImportError("x.so: failed to map segment from shared object"), "not enough memory"),
        (caused_by(OSError(errno.EMFILE, "Too many open files")), "too many files"),
    ],
)
def test_an_error_that_a_limit_causes_names_the_limit(error: BaseException, option: str) -> None:
    found = limit_error(error)
    assert found is not None
    assert option in str(found)
    assert "\n" not in str(found)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        OSError(errno.ENOENT, "No such file or directory", "Too many open files"),
        # A name of a file is no sign of a limit.
        SourceError("Too many open files.tar: does not exist"),
    ],
)
def test_other_errors_are_no_limits(error: BaseException) -> None:
    assert limit_error(error) is None


def test_a_limit_is_neither_damage_nor_a_reject(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(LimitError), damage_errors("a.parquet"):
        fail()
    with pytest.raises(LimitError), disk_full_errors("lake"):
        raise OSError(errno.EFBIG, "File too large")
    # Damaged bytes may declare any size.
    with pytest.raises(DamagedLakeError), damage_errors("a.parquet"):
        raise MemoryError
    monkeypatch.setattr("pipeline.decode.FileIO", fail)
    shard = Encoded("s", "f", ("a.png",), np.array(["a"]), Files(("a.png",)))  # type: ignore[arg-type]
    with pytest.raises(LimitError):
        list(decode_images(shard, DecodePart(mode="L")))


@pytest.mark.skipif(os.name == "nt", reason="has no ulimit")
@pytest.mark.parametrize(("limits", "text"), [("-n 16", "ulimit -n 16"), ("-v 500000", "ulimit -v 500000")])
def test_a_command_says_which_limit_is_too_low(limits: str, text: str) -> None:
    command = Path(sys.executable).with_name("imagelake")
    ended = subprocess.run(
        ["/bin/sh", "-c", f"ulimit {limits}; exec {command} history nowhere"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert text in ended.stderr
