"""Between a lake and its bucket everything goes wrong that can: builds land, or say what happened; nothing is lost."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import FAULTS, Fault, Plan, Proxy, always, evenly, faulty
from lakes import rows_by_content
from making import as_folder, files_of, recipe
from s3 import Bucket

import schemas
from pipeline import storage
from pipeline.builder.build import Built, build
from pipeline.engines.local import LocalEngine
from pipeline.errors import StorageError
from pipeline.lake_handle import Lake
from pipeline.maintenance import vacuum
from pipeline.verify import verify

SAME = [name for name in schemas.TABLES if name not in ("releases", "scores", "misses", "exports")]
SPLIT = {"name": "main", "sanitize": "exact", "train": {"from": "train"}, "test": {"from": "test"}}


@pytest.fixture
def proxy(lake_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with faulty(lake_bucket.endpoint) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.endpoint)
        yield found


@pytest.fixture
def base(tmp_path: Path) -> Path:
    as_folder(tmp_path / "in", files_of(40))
    as_folder(tmp_path / "test", files_of(20, seed=1))
    return tmp_path


def made(base: Path, root: str) -> Built:
    asked = recipe(
        base,
        {"uri": "in"},
        {"uri": "test", "split": "test"},
        lake={"root": root},
        dedup={"rules": ["exact", "cosine:0.9"]},
        split=[SPLIT],
    )
    return build(asked, engine=LocalEngine(1))


def equal(base: Path, place: str) -> bool:
    """Tell whether the lake equals one that was made in a folder, from nothing, where nothing goes wrong."""
    fresh = made(base, f"fresh{len(list(base.iterdir()))}").root
    return all(rows_by_content(fresh, name).equals(rows_by_content(place, name)) for name in SAME)


def rounds(  # noqa: PLR0913 - how often, and how badly
    base: Path, place: str, proxy: Proxy, seeds: range, *, rate: float, seconds: float
) -> tuple[Counter[str], Counter[str]]:
    """Change the source and build under faults, again and again; each lake is looked at without faults."""
    met: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    made(base, place)
    for seed in seeds:
        as_folder(base / "in", {f"A/new{seed}.png": files_of(1, seed=100 + seed)["A/00000.png"]})
        before = Lake(place).release
        proxy.forget()
        proxy.use(evenly(rate, *FAULTS, seed=seed, seconds=seconds))
        try:
            landed = made(base, place).release
            ends["landed"] += 1
        except StorageError:
            landed = before
            ends["ended with an error that says so"] += 1
        proxy.quiet()
        met.update(proxy.injected)
        assert Lake(place).release in {landed, before + 1}
        assert [check for check in verify(place) if check.faults] == []
    made(base, place)
    assert equal(base, place)
    return met, ends


@pytest.mark.slow
def test_a_few_faulty_builds(base: Path, lake_bucket: Bucket, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.storage.client._RETRY_DELAYS", (0.01, 0.02, 0.05, 0.1, 0.2, 0.4))
    met, ends = rounds(base, f"s3://{lake_bucket.name}/lake", proxy, range(2), rate=0.08, seconds=0.02)
    assert sum(met.values()) > 20
    assert sum(ends.values()) == 2


@pytest.mark.stress
def test_many_faulty_builds(base: Path, lake_bucket: Bucket, proxy: Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    place = f"s3://{lake_bucket.name}/lake"
    met, ends = rounds(base, place, proxy, range(20), rate=0.1, seconds=0.2)
    vacuum(place, older_than_hours=0, dry_run=False)
    assert equal(base, place)
    with capsys.disabled():
        print(f"\nS3 faults injected: {sum(met.values())} ({dict(met)}); builds: {dict(ends)}; nothing lost")  # noqa: T201


@pytest.mark.parametrize(
    "fault", ["late_reset", *(pytest.param(fault, marks=pytest.mark.stress) for fault in ("error", "late_error"))]
)
def test_a_bucket_that_stays_away_is_an_error_in_the_end(
    base: Path, lake_bucket: Bucket, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    place = f"s3://{lake_bucket.name}/lake"
    made(base, place)
    as_folder(base / "in", {"A/new.png": files_of(1, seed=9)["A/00000.png"]})
    monkeypatch.setattr("pipeline.storage.client._RETRY_DELAYS", (0.01, 0.01))
    monkeypatch.setattr("pipeline.storage.client.RETRIES", 1)
    monkeypatch.setattr("pipeline.storage.objects.RETRIES", 1)
    proxy.use(always(fault, methods=("PUT",)))
    with pytest.raises(StorageError, match=r"did not answer after several tries. Check AWS_ENDPOINT_URL \(now http"):
        made(base, place)
    proxy.quiet()
    assert Lake(place).release == 1
    assert [check for check in verify(place) if check.faults] == []


def test_nothing_lists_the_bucket(base: Path, lake_bucket: Bucket, proxy: Proxy) -> None:
    """A build lists logs, the marks of writers and the journal of verdicts; only who looks for leftovers lists more."""
    place = f"s3://{lake_bucket.name}/deep/lake"
    for number in range(3):
        made(base, place)
        as_folder(base / "in", {f"A/new{number}.png": files_of(1, seed=9 + number)["A/00000.png"]})
    Lake(place).scan("images").collect()
    listed = {request.query for request in proxy.requests if "list-type" in request.query}
    allowed = ("_delta_log%2F", ".writers%2F", ".verdicts%2F")
    assert listed
    assert [query for query in listed if not any(f"{word}&" in f"{query}&" for word in allowed)] == []
    assert not [request for request in proxy.requests if request.method == "COPY"]


def test_the_plan_of_no_faults_meets_none(proxy: Proxy, lake_bucket: Bucket) -> None:
    proxy.use(Plan())
    storage.write(f"s3://{lake_bucket.name}/x", b"1")
    assert storage.read(f"s3://{lake_bucket.name}/x") == b"1"
    assert not proxy.injected
