"""Run Ceph's S3 server on one machine, in memory, for the stress run.

From Debian: `apt-get install --no-install-recommends radosgw ceph-mon ceph-osd` (tested: 16.2.15, Debian 12). It needs
no systemd and no disk. One monitor, one object store in memory and one gateway are started on free ports, in 15
seconds.

Limits: this version compares `If-Match` with the bare digest, so an ETag in quotes never matches. It does not accept
uploads with a checksum after the body (pyarrow: `AWS_REQUEST_CHECKSUM_CALCULATION=when_required`). And without
`tcp_nodelay` every answer takes 40 ms.
"""

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from s3 import KEY, SECRET, free_port

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
INSTALLED = all(map(shutil.which, PROGRAMS))
CONFIG = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms mon service mode = crc
ms mon cluster mode = crc
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 1
mon data avail warn = 1
run dir = {folder}
crash dir = {folder}
log file = {folder}/$name.log
admin socket =
pid file =
[mon]
mon data = {folder}/mon
mgr initial modules =
[osd]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
[client]
rgw data = {folder}
rgw frontends = beast endpoint=127.0.0.1:{gateway} tcp_nodelay=1
"""


class Cluster:
    """Ceph's programs with a common configuration."""

    def __init__(self, folder: Path, running: ExitStack) -> None:
        self.folder, self.running, self.fsid = folder, running, str(uuid.uuid4())
        self.mon, self.gateway = free_port(), free_port()
        self.config = folder / "ceph.conf"
        self.config.write_text(CONFIG.format(fsid=self.fsid, mon=self.mon, gateway=self.gateway, folder=folder))
        for name in ("mon", "osd"):
            (folder / name).mkdir()

    def run(self, *command: str) -> None:
        """Run a program and wait for it."""
        environment = {**os.environ, "CEPH_CONF": str(self.config)}
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout.decode()}"

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a program that runs until the cluster stops."""
        daemon = self.running.enter_context(
            subprocess.Popen(
                [*command, "--conf", str(self.config), "--foreground"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        # No clean shutdown is needed: all data is in memory.
        self.running.callback(daemon.kill)
        return daemon


def start_store(cluster: Cluster) -> None:
    """Create and start the monitor and the object store."""
    names, store = str(cluster.folder / "monmap"), str(uuid.uuid4())
    cluster.run("monmaptool", "--create", "--fsid", cluster.fsid, "--addv", "a", f"[v2:127.0.0.1:{cluster.mon}]", names)
    cluster.run("ceph-mon", "--mkfs", "--id", "a", "--monmap", names)
    cluster.start("ceph-mon", "--id", "a")
    cluster.run("ceph", "osd", "new", store)
    cluster.run("ceph-osd", "--id", "0", "--mkfs", "--osd-uuid", store)
    cluster.start("ceph-osd", "--id", "0")


@contextmanager
def radosgw(folder: Path) -> Iterator[str]:
    """Run a gateway with one user, who has `s3.KEY` and `s3.SECRET`; yields its URL.

    Args:
        folder: An empty folder for the configuration and the logs.
    """
    with ExitStack() as running:
        cluster = Cluster(folder, running)
        start_store(cluster)
        who = ["--uid", KEY, "--display-name", KEY, "--access-key", KEY, "--secret-key", SECRET]
        cluster.run("radosgw-admin", "user", "create", *who)
        gateway = cluster.start("radosgw", "--name", "client.rgw")
        for _ in range(1200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", cluster.gateway)) == 0:
                    break
            assert gateway.poll() is None, (folder / "client.rgw.log").read_text()[-2_000:]
            time.sleep(0.05)
        yield f"http://127.0.0.1:{cluster.gateway}"
