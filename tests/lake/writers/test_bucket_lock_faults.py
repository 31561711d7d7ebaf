"""The lock and the heartbeats of a lake in a bucket when replies are lost or late."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty import Proxy, always, evenly, faulty
from lakes import writing
from making import as_folder, files_of, recipe
from s3 import Bucket
from together import building, differing, in_turn, left_over, rows_of

from pipeline import storage
from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError, StorageError
from pipeline.lake.writers import heartbeats as writers
from pipeline.lake.writers import lock
from pipeline.lake.writers.heartbeats import living_writers, registered
from pipeline.lake_handle import Lake
from pipeline.recipe import Recipe


@pytest.fixture
def root(lake_bucket: Bucket) -> str:
    return f"s3://{lake_bucket.name}/lake"


@pytest.fixture
def proxy(lake_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Send all requests to the bucket through this proxy, with short retries."""
    monkeypatch.setattr("pipeline.storage.client._RETRY_DELAYS", (0.01, 0.02))
    monkeypatch.setattr("pipeline.storage.client.RETRIES", 2)
    monkeypatch.setattr("pipeline.storage.objects.RETRIES", 2)
    with faulty(lake_bucket.endpoint) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.endpoint)
        yield made


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use short pauses between two looks at the lock."""
    monkeypatch.setattr(lock, "_RETRY_SECONDS", 0.01)


def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    for _ in range(3000):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it does not come about")


def count_up(root: str, threads: int, times: int) -> None:
    """Count in an object, by reading and writing: without the lock, counts are lost."""
    name, inside = f"{root}/counter", threading.Semaphore(1)
    storage.write(name, b"0")

    def count(_: int) -> None:
        for _ in range(times):
            with writing(root, lambda: None):
                assert inside.acquire(blocking=False), "two hold the lock"
                storage.write(name, b"%d" % (int(storage.read(name)) + 1))
                inside.release()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count, range(threads)))
    assert int(storage.read(name)) == threads * times


@pytest.mark.usefixtures("eager")
def test_a_few_threads_never_hold_the_lock_together(root: str) -> None:
    count_up(root, 4, 5)


@pytest.mark.stress
@pytest.mark.usefixtures("eager")
def test_eight_threads_never_hold_the_lock_together(root: str) -> None:
    count_up(root, 8, 50)


@pytest.mark.stress
@pytest.mark.usefixtures("eager")
def test_eight_threads_with_a_bad_network(root: str, proxy: Proxy) -> None:
    proxy.use(evenly(0.2, seconds=0.02))
    count_up(root, 8, 20)
    told = f"{sum(proxy.injected.values())} faults among {len(proxy.requests)} requests"
    print(f"\n8 threads, 160 times the lock, {told}")  # noqa: T201 - shown by make stress


@pytest.mark.usefixtures("eager")
def test_lost_replies_are_retried(root: str, proxy: Proxy) -> None:
    proxy.use(always("late_reset", methods=("PUT",), in_a_row=1))
    count_up(root, 2, 4)
    assert proxy.injected["late_reset"] > 8


def test_a_holder_whose_renewal_got_no_reply_continues(root: str, proxy: Proxy) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "_RENEW_SECONDS", 0.05)
        with lock.hold_bucket_lock(root) as check:
            assert check is not None
            tag = storage.head(f"{root}/.lock")
            proxy.use(always("late_reset", methods=("PUT",), keys=r"\.lock"))
            until(lambda: proxy.injected["late_reset"] > 6)
            assert storage.head(f"{root}/.lock") != tag, "one renewal took effect without a reply"
            proxy.quiet()
            proxy.forget()
            until(lambda: len([item for item in proxy.requests if item.method == "PUT" and item.status == 200]) > 2)
            check()


def test_a_writer_whose_heartbeat_got_no_reply_continues(
    root: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "_BEAT_SECONDS", 0.05)
    with registered(root) as writer:
        proxy.use(always("late_reset", methods=("PUT",), keys=r"\.writers"))
        until(lambda: proxy.injected["late_reset"] > 6)
        proxy.quiet()
        proxy.forget()
        until(lambda: len([item for item in proxy.requests if item.method == "PUT" and item.status == 200]) > 2)
        with writing(root):
            assert living_writers(root) == {writer.name}


def asked(base: Path, root: str, *more: str) -> Recipe:
    if not (base / "a").exists():
        as_folder(base / "a", files_of(12))
        as_folder(base / "b", files_of(12, seed=1))
    sources = [{"uri": name, "split": f"of-{name}"} for name in ("a", *more)]
    return recipe(base, *sources, lake={"root": root}, dedup={"rules": ["exact"]})


def made(asked_for: Recipe) -> str:
    return build(asked_for, engine=LocalEngine(1)).root


def test_a_build_that_was_declared_dead_commits_nothing(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(asked(tmp_path, root))

    def sweep() -> None:
        assert [path for path in left_over(root) if path.startswith("images/")]
        with pytest.MonkeyPatch.context() as patch:
            # Silent for no time at all is too long.
            patch.setattr(writers, "_DEAD_SECONDS", -1.0)
            with registered(root):
                pass
        assert left_over(root) == []

    done = in_turn(monkeypatch, building(asked(tmp_path, root, "b")), building(asked(tmp_path, root)), between=sweep)
    assert isinstance(done[0], LakeError)
    assert "another build deleted its files" in str(done[0])
    assert Lake(root).release == 1
    assert left_over(root) == []
    assert differing(made(asked(tmp_path, root, "b")), made(asked(tmp_path, "fresh", "b"))) == []


def test_only_an_old_heartbeat_is_deleted(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_if_unchanged(f"{root}/.writers/{'0' * 12}", b"", None)
    for dead, stay in ((900.0, ["0" * 12]), (-1.0, [])):
        monkeypatch.setattr(writers, "_DEAD_SECONDS", dead)
        with registered(root):
            pass
        assert list(storage.list_files(f"{root}/.writers")) == stay


@pytest.mark.parametrize(
    "table", ["shards", *(pytest.param(name, marks=pytest.mark.stress) for name in ("images", "releases"))]
)
def test_a_commit_that_takes_effect_after_its_build_has_failed(
    table: str, root: str, tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files must still exist then: after the last retry it is not known whether the commit will take effect."""
    made(asked(tmp_path, root))
    before = rows_of(root)
    late = f"{root}/{table}/_delta_log/{2:020}.json"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("REQUEST_SECONDS", "RETRY_SECONDS"):
            patch.setattr(f"pipeline.storage.objects.{name}", 1)
        patch.setattr("pipeline.storage.objects.RETRIES", 0)
        proxy.use(always("delay", methods=("PUT",), keys=f"{table}/_delta_log/0*2.json", seconds=8))
        with pytest.raises(StorageError):
            made(asked(tmp_path, root, "b"))
    assert not storage.exists(late)
    assert all(rows.equals(before[name]) for name, rows in rows_of(root).items())
    until(lambda: storage.exists(late))
    assert all(rows.equals(before[name]) for name, rows in rows_of(root, 1).items())
    # Much later, its heartbeat is old.
    monkeypatch.setattr(writers, "_DEAD_SECONDS", -1.0)
    made(asked(tmp_path, root, "b"))
    assert differing(root, made(asked(tmp_path, "fresh", "b"))) == []
    assert left_over(root) == []
