"""Lakes that may be read and not written: in a folder, really so, and in a bucket that refuses to be written to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from commands import Run
from faulty_proxy import FaultyServer, Handler, Message
from making import as_folder, files_of, recipe
from other_user import folder_for_all, somebody_else
from s3 import Bucket
from small_disks import make_read_only, small_disk
from together import differing, left_over, rows_of

from pipeline import storage
from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError, StorageError
from pipeline.lake_handle import Lake
from pipeline.maintenance import vacuum, vacuum_releases
from pipeline.recipe import Recipe

SPLIT = {"name": "main", "sanitize": "exact", "train": {"from": "train"}, "test": {"from": "test"}}
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
HEAD = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n"


def of(base: Path, root: str) -> Recipe:
    if not (base / "a").exists():
        as_folder(base / "a", files_of(20))
        as_folder(base / "b", files_of(8, seed=1))
    parts: dict[str, Any] = {"dedup": {"rules": ["exact"]}, "split": [SPLIT]}
    return recipe(base, {"uri": "a"}, {"uri": "b", "split": "test"}, lake={"root": root}, **parts)


def change(base: Path) -> None:
    as_folder(base / "a", {"A/new.png": files_of(1, seed=9)["A/00000.png"]})


def reads(run: Run, root: str, out: Path) -> None:
    """Read a lake in every way there is."""
    lake = Lake(root)
    assert lake.sql("select count(*) from images").fetchall() == [(28,)]
    assert np.concatenate([y for _, y in lake.batches("main", "train", batch_size=5)]).size == 20
    for words in (
        ("status", root),
        ("sql", root, "select count(*) from splits"),
        ("overlap", root, "--split", "main"),
        ("verify", root),
        ("history", root),
        ("report", root, "--out", out / "report.html"),
    ):
        done = run(*words)
        assert done.exit_code == 0, (words, done.stderr)
    done = run("export", root, "main", out / "npz", "--to", "npz", "--workers", 1)
    assert done.exit_code == 0, done.stderr
    assert "release 1 is not pinned" in done.stderr
    assert (out / "report.html").exists()
    assert (out / "npz" / "main.npz").exists()


def refuses(root: str, base: Path, error: type[Exception], said: str) -> None:
    """Try all that writes: each says so at once, and changes nothing."""
    files, before = list(storage.list_files(root)), rows_of(root)
    change(base)
    tries: list[Callable[[], object]] = [
        lambda: build(of(base, root), engine=LocalEngine(1)),
        lambda: vacuum(root, older_than_hours=0, dry_run=False),
        lambda: vacuum_releases(root, keep_last=1, older_than_hours=0, dry_run=False, force=False),
    ]
    for attempt in tries:
        with pytest.raises(error, match=said):
            attempt()
    assert list(storage.list_files(root)) == files
    assert all(rows.equals(before[name]) for name, rows in rows_of(root).items())


def test_a_folder_on_a_read_only_file_system(tmp_path: Path, run: Run) -> None:
    with small_disk(tmp_path / "disk", "size=8m") as disk:
        root = build(of(tmp_path, str(disk / "lake")), engine=LocalEngine(1)).root
        make_read_only(disk)
        reads(run, root, tmp_path)
        refuses(root, tmp_path, LakeError, "lake.*: cannot be written to .Read-only file system.*another folder")
        with pytest.raises(LakeError, match="cannot be written to"):
            build(of(tmp_path, str(disk / "new")), engine=LocalEngine(1))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with folder_for_all() as folder:
        yield folder


def test_a_folder_of_another_user(open_folder: Path, run: Run) -> None:
    root = build(of(open_folder, "lake"), engine=LocalEngine(1)).root
    out = open_folder / "out"
    out.mkdir(mode=0o777)
    out.chmod(0o777)
    # What is imported when it is first needed may not be readable for the other.
    (open_folder / "before").mkdir()
    run("build", "--help")
    reads_as_root = open_folder / "copy"
    build(of(open_folder, str(reads_as_root)), engine=LocalEngine(1))
    for command in ("status", "verify", "overlap", "history"):
        run(command, reads_as_root)
    run("report", reads_as_root, "--out", open_folder / "before" / "r.html")
    run("export", reads_as_root, "main", open_folder / "before" / "npz", "--to", "npz", "--workers", 1, "--no-pin")
    list(Lake(reads_as_root).batches("main", "train", batch_size=5))
    Lake(reads_as_root).sql("select 1").fetchall()
    with somebody_else():
        reads(run, root, out)
    files = list(storage.list_files(root))
    change(open_folder)
    with somebody_else(), pytest.raises(LakeError, match="lake.*: cannot be written to .Permission denied"):
        build(of(open_folder, "lake"), engine=LocalEngine(1))
    with somebody_else(), pytest.raises(LakeError, match="lake.*: cannot be written to .Permission denied"):
        vacuum(root, older_than_hours=0, dry_run=False)
    assert list(storage.list_files(root)) == files


def test_a_folder_in_which_nothing_can_be_made(open_folder: Path) -> None:
    """Its files may be written to, so the lock can be had; a mark cannot be made."""
    root = Path(build(of(open_folder, "lake"), engine=LocalEngine(1)).root)
    (root / ".lock").chmod(0o666)
    change(open_folder)
    with somebody_else(), pytest.raises(LakeError, match="lake.*: cannot be written to .Permission denied"):
        build(of(open_folder, "lake"), engine=LocalEngine(1))
    assert left_over(str(root)) == []


class Denying(Handler):
    """Lets through what reads."""

    def answer(self, request: Message, fault: Any) -> Message | None:
        if request.first[0] in ("GET", "HEAD"):
            return super().answer(request, fault)
        return Message(HEAD % len(DENIED), DENIED)


@pytest.fixture
def denied(lake_bucket: Bucket) -> Iterator[str]:
    """The address by which a bucket can be read only."""
    host, _, port = lake_bucket.endpoint.removeprefix("http://").rpartition(":")
    with FaultyServer((host, int(port))) as server:
        server.RequestHandlerClass = Denying
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_bucket_that_may_only_be_read(
    tmp_path: Path, lake_bucket: Bucket, denied: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = f"s3://{lake_bucket.name}/lake"
    build(of(tmp_path, root), engine=LocalEngine(1))
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", denied)
        reads(run, root, tmp_path)
        refuses(root, tmp_path, StorageError, "Access is denied. Set AWS_ACCESS_KEY_ID")
        with pytest.raises(StorageError, match="Access is denied"):
            build(of(tmp_path, f"s3://{lake_bucket.name}/new"), engine=LocalEngine(1))
    assert build(of(tmp_path, root), engine=LocalEngine(1)).release == 2
    assert differing(root, build(of(tmp_path, "fresh"), engine=LocalEngine(1)).root) == []
    assert left_over(root) == []
