"""The lock of a lake in a bucket has one holder, also if a holder dies, is suspended, or gets no reply."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pyarrow as pa
import pytest
from lakes import Place, commit, list_releases, publish, scan_table, without_lock, write_part, writing
from s3 import Bucket

import schemas
from pipeline import storage
from pipeline.errors import BusyLakeError, LakeError
from pipeline.lake.delta_log import Metadata
from pipeline.lake.writers import lock

SCHEMA = schemas.TABLES["clusters"].schema


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Measure leases by this clock, and renew them only where a test does."""
    made = Clock()
    for name, value in (("now", made), ("_RENEW_SECONDS", 3600.0), ("_seen", {})):
        monkeypatch.setattr(lock, name, value)
    return made


@pytest.fixture
def root(lake_bucket: Bucket) -> str:
    return f"s3://{lake_bucket.name}/lake"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use short retries, and short pauses between two looks at the lock."""
    monkeypatch.setattr("pipeline.storage.client._RETRY_DELAYS", (0.01, 0.01))
    monkeypatch.setattr(lock, "_RETRY_SECONDS", 0.01)


def put(root: Place, value: bytes) -> int:
    row = {"cluster_id": value, "image_id": value, "label": None, "dataset": "d", "split": "s", "rule": "exact"}
    part = write_part(
        root if isinstance(root, str) else root.place,
        "clusters",
        {"rule": "exact"},
        pa.Table.from_pylist([row], schema=SCHEMA),
    )
    return commit(root, "clusters", [part] if part else [], lambda _: True, Metadata("dedup"))


def held(root: str, version: int | None = None) -> list[bytes]:
    return list(scan_table(root, "clusters", version).collect()["image_id"])


def busy(root: str) -> bool:
    try:
        with writing(root):
            return False
    except BusyLakeError:
        return True


def elsewhere(work: Callable[[], Any]) -> Any:
    """Run it as another process would: a thread does not share the lock that is held here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def abandon(root: str) -> lock.Lease:
    """Take the lock and end without releasing it."""
    taken = lock._take(f"{root}/.lock")  # noqa: SLF001 - as `hold_bucket_lock` does, without what comes after
    assert taken is not None
    return taken


def test_only_one_writer_holds_the_lock(root: str) -> None:
    with writing(root):
        assert elsewhere(lambda: busy(root))
    with pytest.raises(ValueError, match="of the work"), writing(root):
        raise ValueError("of the work")
    assert not busy(root)


@pytest.mark.usefixtures("quick")
def test_a_second_writer_waits_and_reports_it_once(root: str) -> None:
    told, done = threading.Event(), list[str]()
    calls: list[int] = []

    def wait() -> None:
        calls.append(1)
        told.set()

    def second() -> None:
        with writing(root, wait):
            done.append("second")

    with ThreadPoolExecutor(1) as pool:
        with writing(root):
            waiting = pool.submit(second)
            assert told.wait(60)
            done.append("first")
        waiting.result()
    assert (done, len(calls)) == (["first", "second"], 1)


def test_the_lock_of_a_dead_writer_is_taken_over_when_its_lease_expires(root: str, clock: Clock) -> None:
    abandon(root)
    assert busy(root)
    clock.seconds += lock.LEASE_SECONDS
    assert busy(root)
    clock.seconds += 1
    assert not busy(root)


def test_a_renewed_lease_lasts(root: str, clock: Clock) -> None:
    holder = abandon(root)
    for _ in range(5):
        assert elsewhere(lambda: busy(root))
        clock.seconds += lock.LEASE_SECONDS / 2
        holder._renew()  # noqa: SLF001 - what its thread does every few seconds
        holder.check()
    assert elsewhere(lambda: busy(root))
    # The lease is counted from the last renewal that was seen, not from the first.
    clock.seconds += lock.LEASE_SECONDS / 2
    assert busy(root)


def test_a_late_writer_waits_for_a_whole_lease(root: str, clock: Clock) -> None:
    abandon(root)
    clock.seconds += 10 * lock.LEASE_SECONDS
    assert busy(root)
    clock.seconds += lock.LEASE_SECONDS + 1
    assert not busy(root)


def test_a_suspended_holder_commits_nothing_more(root: str, clock: Clock) -> None:
    with writing(root) as lake:
        put(lake, b"before")
        clock.seconds += lock.LEASE_SECONDS / 2 + 1
        with pytest.raises(LakeError, match=r"the lock of the lake is lost.*Nothing of this build is visible"):
            put(lake, b"after")
        with pytest.raises(LakeError, match="lost"):
            publish(lake, "digest", "", {})
    assert held(root) == [b"before"]
    assert list_releases(root).is_empty()


def test_a_holder_that_was_suspended_while_another_committed(root: str, clock: Clock) -> None:
    def take_over() -> None:
        assert busy(root)
        clock.seconds += lock.LEASE_SECONDS + 1
        with writing(root) as other:
            put(other, b"of the other")
            publish(other, "other", "", {})

    with writing(root) as lake:
        put(lake, b"mine")
        elsewhere(take_over)
        with pytest.raises(LakeError, match="lost"):
            put(lake, b"late")
        with pytest.raises(LakeError, match="lost"):
            publish(lake, "late", "", {})
    assert held(root) == [b"of the other"]
    assert list_releases(root)["recipe_digest"].to_list() == ["other"]
    assert not busy(root), "letting go of what is lost took the lock from nobody"


@pytest.mark.parametrize("cached", [False, True], ids=["opened again", "opened before"])
def test_a_commit_on_a_table_with_a_newer_version_is_refused(root: str, *, cached: bool) -> None:
    """Even if the lease does not show it, the table does: only one writer can commit a version."""
    with ExitStack() as stack:
        lake = stack.enter_context(writing(root))
        put(lake, b"1")
        if cached:
            assert lake.snapshot.files("clusters")
        elsewhere(lambda: put(without_lock(root), b"of the other"))
        with pytest.raises(LakeError, match="commit was refused"):
            put(lake, b"2")
        named = publish(lake, "digest", "", {})
    release = {item["table"]: item["version"] for item in list_releases(root)["versions"].to_list()[0]}
    assert named == 1
    assert held(root, release["clusters"]) == [b"1"], "what is published is what this writer made"
    assert held(root) == [b"of the other"]


@pytest.mark.parametrize("releases", [0, 1])
def test_one_of_two_concurrent_releases_is_refused(root: str, releases: int) -> None:
    for number in range(releases):
        publish(root, f"{number}", "", {})
    with writing(root) as lake:
        put(lake, b"1")
        assert len(lake.snapshot.scan("releases").collect()) == releases
        elsewhere(lambda: publish(without_lock(root), "other", "", {}))
        with pytest.raises(LakeError, match="commit was refused|another writer created the table"):
            publish(lake, "mine", "", {})
    assert list_releases(root)["recipe_digest"].to_list()[releases:] == ["other"]


@pytest.fixture
def slow_answer(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[list[Callable[[], object]]]:
    """Call the functions in this list, once, between a conditional write and the read of its result."""
    happen: list[Callable[[], object]] = []
    real = storage.objects.head

    def look(name: str) -> Any:
        if happen and threading.current_thread() is threading.main_thread():
            happen.pop()()
        return real(name)

    monkeypatch.setattr("pipeline.storage.objects.head", look)
    yield happen
    assert clock
    assert not happen


def take_over(root: str, clock: Clock) -> Callable[[], object]:
    def other() -> None:
        elsewhere(lambda: busy(root))
        clock.seconds += lock.LEASE_SECONDS + 1
        elsewhere(lambda: abandon(root))

    return other


def test_a_holder_suspended_during_its_renewal_does_not_take_the_lock_back(
    root: str, clock: Clock, slow_answer: list[Callable[[], object]]
) -> None:
    holder = abandon(root)
    slow_answer.append(take_over(root, clock))
    for _ in range(2):
        holder._renew()  # noqa: SLF001 - what its thread does every few seconds
        with pytest.raises(LakeError, match="lost"):
            holder.check()


def test_a_writer_suspended_while_it_locks_does_not_hold_the_lock(
    root: str, clock: Clock, slow_answer: list[Callable[[], object]]
) -> None:
    slow_answer.append(take_over(root, clock))
    assert lock._take(f"{root}/.lock") is None  # noqa: SLF001 - as `hold_bucket_lock` does
    assert busy(root)
