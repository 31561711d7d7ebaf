"""Output that cannot be written: a command does its work, and its exit code says what happened."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from making import as_folder, files_of

from pipeline.cli import streams
from pipeline.cli.streams import LossyOutput
from pipeline.lake_handle import Lake

COMMAND = str(Path(sys.executable).with_name("imagelake"))
PROJECT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the shell of these tests is that of other systems")


def shell(text: str) -> tuple[int, str]:
    """Run a line of a shell, where $IL is the command; returns exit code and what it wrote on stderr."""
    variables = {**os.environ, "PYTHONPATH": str(PROJECT), "IL": COMMAND}
    done = subprocess.run(["bash", "-c", text], env=variables, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stderr


class Failing(io.RawIOBase):
    """A stream that takes three bytes, then fails."""

    def __init__(self, number: int) -> None:
        self.taken = b""
        self._number = number

    def write(self, data: object) -> int:
        if self.taken:
            raise OSError(self._number, os.strerror(self._number))
        self.taken = bytes(memoryview(data)[:3])  # type: ignore[arg-type]
        return len(self.taken)


@pytest.mark.parametrize(("number", "is_error"), [(errno.EPIPE, False), (errno.ENOSPC, True), (errno.EBADF, True)])
def test_output_is_discarded_after_the_first_error(
    monkeypatch: pytest.MonkeyPatch, number: int, *, is_error: bool
) -> None:
    raw = Failing(number)
    stream = io.TextIOWrapper(io.BufferedWriter(LossyOutput(raw)), line_buffering=True)
    monkeypatch.setattr(sys, "stdout", stream)
    for _ in range(3):
        stream.write("abcdef\n")
    assert raw.taken == b"abc"
    lost = streams.lost_output()
    assert lost is not None
    assert lost.errno == number
    assert streams.incomplete_output() is (lost if is_error else None)


def test_a_full_pipe_that_does_not_block_is_waited_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    size = 2**18
    with subprocess.Popen(["wc", "-c"], stdin=reader, stdout=subprocess.PIPE) as counter:
        os.close(reader)
        with io.FileIO(writer, "w") as raw:
            out = io.BufferedWriter(LossyOutput(raw))
            out.write(b"x" * size)
            out.flush()
        assert counter.stdout is not None
        assert int(counter.stdout.read()) == size


def test_a_build_without_any_standard_stream_publishes(tmp_path: Path) -> None:
    as_folder(tmp_path / "in", files_of(6))
    code, _ = shell(f'"$IL" build {tmp_path}/in --into {tmp_path}/lake --workers 1 <&- >&- 2>&-')
    assert code == 0
    assert Lake(tmp_path / "lake").scan("images").collect().height == 6
    # Prints did not land in a file that got the number of stdout.
    assert not list((tmp_path / "lake").rglob("*.draft"))
    assert (tmp_path / "lake" / "recipe.toml").read_text().startswith("# A recipe of imagelake")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_stdout_is_one_line_and_exit_code_1(small_lake: Lake) -> None:
    assert shell(f'"$IL" history {small_lake.root} >/dev/full') == (
        1,
        "imagelake: stdout cannot be written to (No space left on device): output is lost. Everything else is done.\n",
    )


def test_a_reader_that_leaves_is_no_error(small_lake: Lake) -> None:
    query = "select * from images, range(2000)"
    assert shell(f'"$IL" sql {small_lake.root} "{query}" --csv | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}') == (
        0,
        "",
    )
