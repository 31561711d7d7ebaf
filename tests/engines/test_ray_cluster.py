"""A real cluster on this machine: nodes with processes and an object store each, one of which is killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from pipeline.demo import synth
from pipeline.lake_handle import Lake
from pipeline.verify import verify

pytestmark = [
    pytest.mark.ray,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.skipif(find_spec("ray") is None, reason="ray (extra `ray`) is not installed"),
]

BIN = Path(sys.executable).parent
TABLES = ("images", "rejects", "shards", "index", "pairs", "clusters", "splits")
RECIPE = """
[lake]
root = "{root}"
[[source]]
uri = "{glyphs}/train"
dataset = "g"
split = "train"
[[source]]
uri = "{glyphs}/test"
dataset = "g"
split = "test"
[decode]
size = [28, 28]
[dedup]
rules = ["exact", "sign", "maxpool:4", "cosine:0.95", "hamming:2"]
[[split]]
name = "main"
sanitize = "sign"
train = {{ from = "train" }}
test = {{ from = "test" }}
"""
SETTINGS = {"RAY_raylet_start_wait_time_s": "40", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


class Cluster:
    """Nodes of one core, each in a session of its own, so that one can be killed with all that it runs.

    The first is the head: the driver is connected to it. The IPs are all this machine's.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.nodes: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        """Where the head is."""
        return f"127.0.0.{self.alive[0] + 1}:{self.port}"

    def start(self) -> None:
        """Start a node, and wait until the cluster has it; a busy machine takes several tries (see `ray._STARTS`)."""
        for _ in range(4):
            if self._started(len(self.nodes)):
                return
        raise AssertionError(self.log(len(self.nodes) - 1).read_text())

    def _started(self, number: int) -> bool:
        words = [f"--address={self.address}"] if self.alive else ["--head", "--include-dashboard=false"]
        words += [] if self.alive else [f"--port={self.port}"]
        words += [f"--node-ip-address=127.0.0.{number + 1}", "--num-cpus=1", f"--object-store-memory={256 * 2**20}"]
        words += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0", "--block"]
        with self.log(number).open("wb") as log:
            node = subprocess.Popen(
                [BIN / "ray", "start", *words],
                stdout=log,
                stderr=log,
                env={**os.environ, **SETTINGS},
                start_new_session=True,
            )
        self.nodes.append(node)
        while node.poll() is None and "Ray runtime started" not in self.log(number).read_text():
            time.sleep(0.1)
        if node.poll() is not None:
            self.kill(number)
        return number in self.alive

    @property
    def alive(self) -> list[int]:
        """Numbers of the nodes that run."""
        return [number for number, node in enumerate(self.nodes) if node.poll() is None]

    def log(self, number: int) -> Path:
        """Where a node says what it does."""
        return self.folder / f"node-{number}.log"

    def kill(self, number: int) -> None:
        """End a node as a power cut does: its raylet, its workers and its object store."""
        for process in in_session(self.nodes[number].pid):
            os.kill(process, signal.SIGKILL)
        self.nodes[number].wait()


def in_session(session: int) -> list[int]:
    """Processes of a session: field 6 of stat."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for all tests."""
    made = Cluster(tmp_path_factory.mktemp("nodes"))
    try:
        yield made
    finally:
        for number in made.alive[::-1]:
            made.kill(number)


@pytest.fixture
def cluster(nodes: Cluster) -> Cluster:
    """Three nodes: what a test has killed, the next one finds replaced."""
    while len(nodes.alive) < 3:
        nodes.start()
    return nodes


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 12,000 train images, which are read in five shards, and of some test images."""
    folder = tmp_path_factory.mktemp("glyphs")
    synth(folder, rows=12_000, seed=1, form="folder", workers=2)
    return folder


def recipe_at(base: Path, root: str, glyphs: Path) -> Path:
    file = base / f"{root}.toml"
    file.write_text(RECIPE.format(root=root, glyphs=glyphs))
    return file


def built(recipe: Path, *words: str) -> "subprocess.Popen[str]":
    command: list[str | Path] = [BIN / "imagelake", "build", recipe, *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **SETTINGS}
    )


def rows_of(root: Path) -> dict[str, pl.DataFrame]:
    lake = Lake(root)
    return {name: lake.scan(name).collect() for name in TABLES}


def build_while_a_node_dies(base: Path, glyphs: Path, cluster: Cluster, files: int) -> str:
    """Build on the cluster, kill its last node when so many files of images are there, and compare with a local build.

    Returns:
        What the build said on stderr.
    """
    root = base / "lake"
    with built(recipe_at(base, "lake", glyphs), "--engine", "ray", "--ray-address", cluster.address) as build:
        while len(list(root.glob("images/**/*.parquet"))) < files and build.poll() is None:
            time.sleep(0.01)
        assert build.poll() is None, build.communicate()
        cluster.kill(cluster.alive[-1])
        out, said = build.communicate(timeout=600)
    assert build.returncode == 0, said
    assert "built release 1" in out
    with built(recipe_at(base, "local", glyphs), "--workers", "2") as build:
        assert build.wait() == 0
    on_cluster, local = rows_of(root), rows_of(base / "local")
    for name in TABLES:
        assert len(local[name]) or name == "rejects"
        assert on_cluster[name].equals(local[name]), name
    assert all(not check.faults for check in verify(str(root)))
    return said


@pytest.mark.slow
def test_a_build_outlives_a_node(tmp_path: Path, glyphs: Path, cluster: Cluster) -> None:
    said = build_while_a_node_dies(tmp_path, glyphs, cluster, files=2)
    assert "Traceback" not in said


@pytest.mark.stress
@pytest.mark.parametrize("files", [1, 4, 8, 12, 16])
def test_a_larger_build_outlives_a_node_wherever_it_is(tmp_path: Path, cluster: Cluster, files: int) -> None:
    synth(tmp_path / "glyphs", rows=200_000, seed=files, form="folder", workers=2)
    build_while_a_node_dies(tmp_path, tmp_path / "glyphs", cluster, files=files)


# Every result is too large to travel with its message: it stays in the object store of its node until it is fetched.
DRIVER = """
import sys, time
from pathlib import Path
from pipeline.engines.ray import RayEngine

address, folder = sys.argv[1], Path(sys.argv[2])

def work(number):
    import ray, time
    while number == 0 and not (folder / "go").exists():
        time.sleep(0.01)
    (folder / f"{number} {ray.util.get_node_ip_address()} {time.time_ns()}").touch()
    return bytes([number]) * 2**20

results = list(RayEngine(address=address).map(work, range(6)))
print([len(result) == 2**20 and result[0] for result in results])
"""


def test_results_that_die_with_their_node_are_made_again(tmp_path: Path, cluster: Cluster) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "done").mkdir()
    command: list[str | Path] = [sys.executable, tmp_path / "driver.py", cluster.address, tmp_path / "done"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **SETTINGS}) as driver:
        while len(list((tmp_path / "done").iterdir())) < 5 and driver.poll() is None:
            time.sleep(0.01)
        # Nothing is fetched before the first result, which waits: whoever did something holds it.
        places = [file.name.split()[:2] for file in (tmp_path / "done").iterdir()]
        lost = next(number for number in cluster.alive[1:] if any(ip.endswith(f".{number + 1}") for _, ip in places))
        cluster.kill(lost)
        (tmp_path / "done" / "go").touch()
        out, _ = driver.communicate(timeout=300)
    assert out.strip() == "[0, 1, 2, 3, 4, 5]"
    made = [file.name.split()[0] for file in (tmp_path / "done").iterdir() if file.name != "go"]
    for item in {item for item, ip in places if ip.endswith(f".{lost + 1}")}:
        assert made.count(item) > 1


@pytest.mark.slow
def test_ctrl_c_ends_the_work_of_other_nodes(tmp_path: Path, glyphs: Path, cluster: Cluster) -> None:
    with built(recipe_at(tmp_path, "lake", glyphs), "--engine", "ray", "--ray-address", cluster.address) as build:
        while not list(tmp_path.glob("lake/images/**/*.parquet")) and build.poll() is None:
            time.sleep(0.01)
        build.send_signal(signal.SIGINT)
        out, said = build.communicate(timeout=120)
    assert (build.returncode, out) == (130, ""), said
    assert said.strip() == "imagelake: stopped. The lake is as of its last release; run the command again to continue."
    assert not list(tmp_path.glob("lake/*/**/*.parquet"))
    with built(recipe_at(tmp_path, "lake", glyphs), "--engine", "ray", "--ray-address", cluster.address) as build:
        out, said = build.communicate(timeout=600)
    assert "built release 1" in out, said
