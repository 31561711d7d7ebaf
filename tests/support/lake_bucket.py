"""A server for lakes in buckets, which honours conditional writes.

Delta commits and the lake's lock are PUT requests with `If-None-Match: *` or `If-Match`. rclone, which serves sources
in `s3.py`, ignores both headers. The server is moto under a lock (`locked_moto.py`: `pip install "moto[s3]" flask
flask-cors`), about 500 requests a second; `IMAGELAKE_TEST_SERVER=radosgw` uses Ceph's server instead (`radosgw.py`).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path

from pyarrow.fs import S3FileSystem
from radosgw import INSTALLED, radosgw
from s3 import KEY, SECRET, Bucket

SERVER = os.environ.get("IMAGELAKE_TEST_SERVER", "moto")
HERE = {"moto": bool(find_spec("moto") and find_spec("flask_cors")), "radosgw": INSTALLED}[SERVER]
MISSING = "" if HERE else f"no {SERVER} here: tests/{'locked_moto' if SERVER == 'moto' else SERVER}.py says what it is"


@contextmanager
def moto(folder: Path) -> Iterator[str]:
    """Run moto in its own process; yields its URL."""
    command = [sys.executable, str(Path(__file__).with_name("locked_moto.py"))]
    environment = {**os.environ, "TMPDIR": str(folder)}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment)
    with server:
        try:
            assert server.stdout
            # It prints its URL when it listens, and nothing if it cannot start.
            address = server.stdout.readline().decode().strip()
            assert address, (folder / "server.log").read_text()
            yield address
        finally:
            server.kill()


def conditional_server(folder: Path) -> AbstractContextManager[str]:
    """Run the server in its own process; yields its URL once it responds.

    Args:
        folder: An empty folder for its files. Stored objects are lost when the server stops.
    """
    return {"moto": moto, "radosgw": radosgw}[SERVER](folder)


def make_bucket(endpoint: str, name: str) -> Bucket:
    """Create a bucket on the server."""
    files = S3FileSystem(
        access_key=KEY,
        secret_key=SECRET,
        endpoint_override=endpoint,
        region="us-east-1",
        allow_bucket_creation=True,
        allow_delayed_open=True,
    )
    files.create_dir(name)
    return Bucket(endpoint, name, files)


def bucket_variables(endpoint: str) -> dict[str, str]:
    """Return the environment variables by which every client finds the server."""
    told = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }
    return {**told, "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"} if SERVER == "radosgw" else told
