"""`imagelake review`: time to the first page and to the next decision, and peak memory, on a large lake.

    .venv/bin/python benchmarks/review_app.py [--rows N] [--decisions N] [--lake DIR]

A lake of generated pictures of 28 x 28, in groups of four near copies with about one pair an image by `hamming:6`,
is built once into a temporary folder (or into DIR, where it is kept). The command is started on it, and a client asks
as a browser does:

- start: from the start of the command until it prints the address, with imports;
- first page: the overview, and the first page of each queue, which makes the queue;
- next decision: from a key to the next pair, whose page and both pictures have arrived. The verdict is on the disk
  then. As in a browser, the pictures of the next pair are loaded while a person looks at this one.

The exit code is 1 if a target is missed or a verdict is lost. Verdicts of earlier runs are deleted.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import numpy as np
from figures import Figure, seconds, table
from glyph_data import IMAGELAKE
from numpy.typing import NDArray

from pipeline.verdicts import journal

ROWS, SIDE, GROUP, BLOCK = 1_000_000, 28, 4, 20_000
QUERY = "rule=hamming:6&split=main"
RECIPE = """
[lake]
root = "lake"
[dedup]
rules = ["exact", "hamming:6"]
[[source]]
uri = "train.npz"
dataset = "made"
split = "train"
[[source]]
uri = "test.npz"
dataset = "made"
split = "test"
[[split]]
name = "main"
seed = 1
sanitize = "hamming:6"
train = { from = "train" }
test = { from = "test" }
"""
_FORM = re.compile(r'<form method="post" action="/decide" class="decide">(.*?)</form>', re.DOTALL)
_INPUT = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')
_AHEAD = re.compile(r'data-prefetch="([^"]*)"')
_PICTURE = re.compile(r'<div class="frame"><img src="(/picture/[^"]*)"')


def main() -> int:
    """Run the benchmark; return 1 if a target is missed or a verdict is lost."""
    parser = argparse.ArgumentParser(description="Time and memory of imagelake review.")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"images (default {ROWS:,})")
    parser.add_argument("--decisions", type=int, default=300, help="decisions about pairs (default 300)")
    parser.add_argument("--lake", type=Path, help="folder for the lake; it is built there if there is none")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagelake-bench-") as scratch:
        folder = options.lake or Path(scratch)
        if not (folder / "lake").exists():
            build(folder, options.rows)
        shutil.rmtree(folder / "lake" / journal.FOLDER, ignore_errors=True)
        figures, lost = measure(folder / "lake", options.decisions)
    sys.stdout.write("\n".join([*table(figures), "", f"load {os.getloadavg()[0]:.1f}", ""]))
    if lost:
        sys.stderr.write(f"bench: {lost} verdicts are lost\n")
    return 1 if lost or any(figure.met is False for figure in figures) else 0


def build(folder: Path, rows: int) -> None:
    """Make the pictures and build the lake."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = pictures(rows)
    order = np.random.default_rng(0).permutation(len(images))
    test = len(images) // 10
    for name, part in (("test", order[:test]), ("train", order[test:])):
        np.savez(folder / f"{name}.npz", images=images[part], labels=labels[part])
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    subprocess.run([IMAGELAKE, "build", folder / "recipe.toml"], check=True)


def pictures(rows: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Make groups of four pictures: random blocks of four pixels a side, three of them with noise; 2 % other labels."""
    groups = rows // GROUP
    images = np.empty((groups, GROUP, SIDE, SIDE), np.uint8)
    random = np.random.default_rng(1)
    for start in range(0, groups, BLOCK):
        count = min(BLOCK, groups - start)
        base = np.kron(random.integers(0, 256, (count, 1, 7, 7), np.uint8), np.ones((1, 1, 4, 4), np.uint8))
        noise = random.normal(0, 1, (count, GROUP, SIDE, SIDE)).astype(np.float32)
        noise *= np.array([0, 1, 3, 6], np.float32)[:, None, None]
        images[start : start + count] = np.clip(base + noise, 0, 255)
    labels = np.repeat(np.arange(groups) % 10, GROUP)
    labels = np.where(random.random(len(labels)) < 0.02, (labels + 1) % 10, labels)
    return images.reshape(-1, SIDE, SIDE), labels


class Client(NamedTuple):
    """A browser with the cookie of the app."""

    connection: http.client.HTTPConnection
    headers: dict[str, str]

    def get(self, path: str) -> bytes:
        """Load a page or a picture."""
        return self._answer("GET", path)[0]

    def post(self, path: str, values: dict[str, str]) -> str:
        """Send a form and load the page that it leads to."""
        _, where = self._answer("POST", path, urlencode(values))
        return self.get(where).decode()

    def _answer(self, method: str, path: str, body: str | None = None) -> tuple[bytes, str]:
        self.connection.request(method, path, body, self.headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status not in {200, 303}:
            raise SystemExit(f"{method} {path}: {answer.status} {content[:500]!r}")
        return content, answer.headers.get("Location", "")


@contextmanager
def started(lake: Path) -> Iterator[tuple[int, Client]]:
    """Start the command; its process id, and a client that has the cookie."""
    with subprocess.Popen([IMAGELAKE, "review", lake, "--json"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = urlsplit(json.loads(process.stdout.readline())["address"])
        assert address.hostname is not None
        connection = http.client.HTTPConnection(address.hostname, address.port)
        connection.request("GET", f"/?{address.query}")
        answer = connection.getresponse()
        answer.read()
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        headers = {
            "Cookie": cookie,
            "Origin": f"http://{address.netloc}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        yield process.pid, Client(connection, headers)
        process.send_signal(signal.SIGINT)
        process.wait()


def measure(lake: Path, decisions: int) -> tuple[list[Figure], int]:
    """Measure a session; the figures, and how many verdicts are lost."""
    figures: list[Figure] = []

    def timed(name: str, path: str, most: float | None = None) -> str:
        begin = time.perf_counter()
        page = client.get(path).decode()
        figures.append(seconds("first page", name, [time.perf_counter() - begin], most))
        return page

    begin = time.perf_counter()
    with started(lake) as (process, client):
        figures.append(seconds("start", "command until the address", [time.perf_counter() - begin]))
        timed("overview", "/", 1.0)
        page = timed("pairs across roles", f"/queue/pairs?{QUERY}&between=1", 1.0)
        page = timed("all pairs", f"/queue/pairs?{QUERY}")
        made: list[float] = []
        loaded: set[str] = set()
        for number in range(decisions):
            load(client, _AHEAD.findall(page), loaded)
            begin = time.perf_counter()
            page = decide(client, page, "different" if number % 3 else "same")
            load(client, _PICTURE.findall(page), loaded)
            made.append(time.perf_counter() - begin)
        figures += [
            seconds("next decision", "median", [float(np.median(made))]),
            seconds("next decision", "95th percentile", [float(np.percentile(made, 95))], 0.2),
            seconds("next decision", "longest", [max(made)]),
        ]
        decided = peak_mebibytes(process)
        image = _PICTURE.findall(page)[0].partition("/picture/")[2].partition(".")[0]
        for name, path in {
            "label conflicts": f"/queue/conflicts?{QUERY}",
            "largest clusters": f"/queue/clusters?{QUERY}",
            "newest images": f"/queue/newest?{QUERY}",
            "grid of all images": "/grid?sql=SELECT+image_id+FROM+images",
            "page of an image": f"/image/{image}",
            "precision": "/precision?rule=hamming:6",
        }.items():
            timed(name, path)
        memory = peak_mebibytes(process)
    figures.append(Figure("memory", "peak after the decisions", (decided,), "MiB", most=500.0))
    figures.append(Figure("memory", "peak after all pages", (memory,), "MiB", most=500.0))
    return figures, decisions - len(journal.read_verdicts(str(lake)))


def decide(client: Client, page: str, verdict: str) -> str:
    """Decide about the pair of a page; the next page."""
    form = _FORM.search(page)
    assert form is not None
    fields = {unescape(name): unescape(value) for name, value in _INPUT.findall(form[1])}
    return client.post("/decide", {**fields, "verdict": verdict})


def load(client: Client, addresses: list[str], loaded: set[str]) -> None:
    """Load pictures that were not loaded before."""
    for address in addresses:
        if address not in loaded:
            client.get(unescape(address))
            loaded.add(address)


def peak_mebibytes(process: int) -> float:
    """Read the peak memory of a process."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
