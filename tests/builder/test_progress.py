"""What a build shows while it runs: one bar on a terminal, nothing elsewhere; and how it tells the time left."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from forked import start_command
from making import as_folder, as_tar, encoded, pictures

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.progress import SILENT, Expected, Forecast, Progress
from pipeline.recipe import read_recipe

RECIPE = """
[lake]
root = "lake"
[[source]]
uri = "in"
dataset = "d"
split = "train"
[[source]]
uri = "in.tar"
dataset = "d"
split = "test"
[decode]
mode = "{mode}"
on_mismatch = "resize"
[dedup]
rules = ["exact", "sign"]
[[split]]
name = "main"
train = {{ from = "train" }}
test = {{ from = "test" }}
[[baseline]]
model = "logistic"
split = "main"
train_sizes = [50]
max_iter = 2
"""


# So small that the folder has several shards.
SMALL_SHARDS = {"pipeline.sources.folder._LARGEST": 100}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A recipe with a folder of several shards and a tar; its lake is built, for the next build to know the numbers."""
    folder = tmp_path_factory.mktemp("progress")
    tiny = [encoded(picture) for picture in pictures(50, size=(2, 2))]
    as_folder(folder / "in", {f"{'AB'[n % 2]}/{n}.png": tiny[n % 50] for n in range(600)})
    as_folder(folder / "in", {f"A/bad{n}.png": b"" for n in range(12)})
    as_tar(folder / "in.tar", {f"{'AB'[n % 2]}/{n}.png": tiny[n] for n in range(20)}, "w")
    (folder / "r.toml").write_text(RECIPE.format(mode="L"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL_SHARDS.items():
            patch.setattr(name, value)
        build(read_recipe(folder / "r.toml"), engine=LocalEngine(1))
        yield folder


def on_terminal(*words: str | Path) -> tuple[str, str]:
    """Run a command whose stderr is a terminal of 100 columns: what it prints on stdout and there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
    with TemporaryFile() as printed:
        run = start_command(*words, patches=SMALL_SHARDS, stdout=printed.fileno(), stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # how Linux says that the other side has hung up
            pass
        os.close(ours)
        assert run.wait() == 0, shown
        printed.seek(0)
        return printed.read().decode(), shown.decode()


def test_a_terminal_shows_speed_rejects_time_left_and_the_stage(base: Path) -> None:
    (base / "r.toml").write_text(RECIPE.format(mode="RGB"))
    printed, shown = on_terminal("build", base / "r.toml", "--workers", "1")
    assert re.search(r"decode: +\d+%.* [1-9][.\dk]*/632 \[00:\d\d<00:\d\d, +[.\dk]+ images/s, 12 rejects\]", shown)
    stages = ("check and commit", "cluster by exact", "cluster by sign", "draw split main", "train logistic on main")
    found = [shown.index(stage) for stage in (*stages, "write the report")]
    assert found == sorted(found)
    assert "\n" not in shown
    assert re.search(r"\r +\r$", shown), "the bar is wiped out"
    last = printed.splitlines()[-1]
    assert re.search(
        r"built release 2: 620 images, 12 rejects in .*lake \(632 files at [\d,]+ images/s; .* s in all", last
    )


def test_a_terminal_shows_nothing_where_there_is_nothing_to_do(base: Path) -> None:
    build(read_recipe(base / "r.toml"), engine=LocalEngine(1))
    printed, shown = on_terminal("build", base / "r.toml")
    assert shown == ""
    last = printed.splitlines()[-1]
    assert re.search(r"nothing to do; release \d: 620 images, 12 rejects in .*lake \(\d\.\d s in all\)$", last)


@pytest.mark.slow
def test_a_new_rule_shows_its_own_bar(base: Path) -> None:
    (base / "r.toml").write_text((base / "r.toml").read_text().replace('"sign"]', '"sign", "maxpool:2"]'))
    _, shown = on_terminal("build", base / "r.toml", "--workers", "1")
    assert re.search(r"index: +\d+%.*/620 \[00:\d\d<(\?|00:\d\d), +[?.\dk]+ images/s\]", shown)


def test_no_terminal_no_bar(base: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.format(mode="L").replace('uri = "', f'uri = "{base}/'))
    with TemporaryFile() as printed, TemporaryFile() as shown:
        words = "build", tmp_path / "r.toml", "--workers", 1
        assert start_command(*words, stdout=printed.fileno(), stderr=shown.fileno()).wait() == 0
        printed.seek(0)
        shown.seek(0)
        assert shown.read() == b""
        assert b"built release 1: 620 images" in printed.read()


def test_no_terminal_no_tqdm() -> None:
    code = "import sys, pipeline.progress as p; p.Progress('x').advance(1); print('tqdm' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("False\n", "")


def test_progress_that_nobody_sees_still_counts_rejects(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress("decode", 5) as progress:
        progress.advance(2, 1)
        progress.expect(4)
        progress.step("commit")
        assert progress.rejects == 1
    SILENT.stage("index")
    assert capfd.readouterr() == ("", "")


def test_sources_that_are_all_known_add_up() -> None:
    forecast = Forecast({"a": Expected(10), "b": Expected(5, 700), "none left": Expected(0)})
    assert forecast.total() == 15
    forecast.count("a", 4)
    assert forecast.total() == 15


def test_a_source_that_turns_out_larger_or_smaller_corrects_the_total() -> None:
    forecast = Forecast({"a": Expected(10), "b": Expected(5)})
    forecast.count("a", 12)
    assert forecast.total() == 17
    forecast.count("b", 1)
    assert forecast.total() == 17
    forecast = Forecast({"a": Expected(10), "b": Expected(5)})
    forecast.count("a", 3)
    forecast.count("b", 5)
    assert forecast.total() == 8


def test_a_part_that_was_read_tells_the_rest() -> None:
    forecast = Forecast({"a": Expected(None, 1000)})
    assert forecast.total() is None
    forecast.count("a", 100, 0.25)
    assert forecast.total() == 400
    forecast.count("a", 100, 0.4)
    assert forecast.total() == 500
    forecast.count("a", 300, 1.0)
    assert forecast.total() == 500


def test_a_part_that_was_read_corrects_what_was_told_before() -> None:
    forecast = Forecast({"a": Expected(100)})
    forecast.count("a", 50, 0.25)
    assert forecast.total() == 200


@pytest.mark.parametrize("done", [0.0, 1.5, None])
def test_a_part_that_makes_no_sense_is_no_crash(done: float | None) -> None:
    forecast = Forecast({"a": Expected(None, 10)})
    forecast.count("a", 5, done)
    assert forecast.total() == (5 if done else None)


def test_sources_to_come_have_as_many_images_a_byte() -> None:
    forecast = Forecast({"a": Expected(None, 1000), "b": Expected(None, 500), "c": Expected(7)})
    forecast.count("a", 10, 0.1)
    assert forecast.total() == 100 + 50 + 7
    forecast.count("b", 40, 0.5)
    assert forecast.total() == 10 + 80 + 7


def test_a_source_of_which_nothing_is_known_leaves_the_total_open() -> None:
    forecast = Forecast({"a": Expected(None, 1000), "b": Expected()})
    forecast.count("a", 10, 0.1)
    assert forecast.total() is None
