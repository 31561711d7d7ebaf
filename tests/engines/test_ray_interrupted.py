"""The command with Ray, interrupted and killed: it says one line, and nothing of it goes on running."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(find_spec("ray") is None, reason="ray (extra `ray`) is not installed"),
]

# Names of processes are cut after 15 characters.
AGENTS = ("(ray::DashboardA", "(ray::RuntimeEnv")
COMMAND = str(Path(sys.executable).with_name("imagelake"))
# Many small shards: the first images are there soon, and the build goes on for long.
GLYPHS = '[lake]\nroot = "lake"\n' + "".join(
    f'[[source]]\nuri = "g"\nformat = "glyphs"\nrows = 300\nseed = {number}\ndataset = "g{number}"\nsplit = "train"\n'
    for number in range(24)
)


def started_build(folder: Path) -> "subprocess.Popen[str]":
    """Start a long build with Ray in a session of its own, and wait until it writes images."""
    (folder / "in.toml").write_text(GLYPHS)
    command = [COMMAND, "build", str(folder / "in.toml"), "--engine", "ray", "--workers", "2"]
    build = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(folder.glob("lake/images/**/*.parquet")) and build.poll() is None:
        time.sleep(0.02)
    return build


def test_ctrl_c_is_quiet_and_leaves_no_process(tmp_path: Path) -> None:
    with started_build(tmp_path) as build:
        os.killpg(build.pid, signal.SIGINT)
        out, said = build.communicate(timeout=120)
    assert build.returncode == 130, said
    assert said.strip() == "imagelake: stopped. The lake is as of its last release; run the command again to continue."
    assert out == ""
    gone(build.pid)
    assert not list(tmp_path.glob("lake/images/**/*.parquet"))


def test_no_process_lingers_when_the_driver_is_killed(tmp_path: Path) -> None:
    with started_build(tmp_path) as build:
        build.kill()
        build.communicate(timeout=120)
    gone(build.pid)


def gone(session: int) -> None:
    """Wait until no worker and no server of a session runs."""
    deadline = time.monotonic() + 60
    while alive(session) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(session)


def alive(session: int) -> list[str]:
    """Processes of a session that still run: field 6 of stat is the session, field 3 the state.

    Ray's two agents are left out: they look for their node once a minute, and end when it is gone.
    """
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        fields = rest.split()
        if int(fields[3]) == session and fields[0] != "Z" and not name.endswith(AGENTS):
            found.append(name)
    return found
