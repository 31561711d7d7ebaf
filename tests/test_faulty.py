"""The proxy does what its plans say: a fault test proves nothing if no fault came."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
import pytest
from faulty import AFTER, FAULTS, Fault, Plan, Proxy, always, evenly, faulty
from lake_bucket import make_bucket
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store
from s3 import Bucket

if TYPE_CHECKING:
    from obstore.store import RetryConfig

BODY = bytes(range(256)) * 1_000
BROKEN = tuple(fault for fault in FAULTS if fault not in ("delay", "trickle"))
ONCE: "RetryConfig" = {"max_retries": 0, "retry_timeout": timedelta(seconds=30)}


@pytest.fixture
def proxy(lake_bucket: Bucket) -> Iterator[Proxy]:
    with faulty(lake_bucket.endpoint) as running:
        yield running


def through(proxy: Proxy, bucket: Bucket, retries: "RetryConfig" = ONCE) -> S3Store:
    return S3Store(bucket.name, endpoint=proxy.endpoint, client_options={"allow_http": True}, retry_config=retries)


def test_without_a_plan_all_passes_and_is_recorded(proxy: Proxy, lake_bucket: Bucket) -> None:
    store = through(proxy, lake_bucket)
    obstore.put(store, "a/b", BODY, use_multipart=False)
    assert bytes(obstore.get_range(store, "a/b", start=7, length=9)) == BODY[7:16]
    assert [found["path"] for found in obstore.list(store, "a").collect()] == ["a/b"]
    obstore.delete(store, "a/b")
    with pytest.raises(FileNotFoundError):
        obstore.head(store, "a/b")
    seen = [
        (request.method, request.path.removeprefix(f"/{lake_bucket.name}"), request.status)
        for request in proxy.requests
    ]
    assert seen[:2] == [("PUT", "/a/b", 200), ("GET", "/a/b", 206)]
    assert seen[-1] == ("HEAD", "/a/b", 404)
    assert [request.query for request in proxy.requests if "list-type" in request.query] == ["list-type=2&prefix=a%2F"]
    assert not proxy.injected
    proxy.forget()
    assert proxy.requests == []


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_before_changes_nothing_and_one_after_is_done(fault: Fault, proxy: Proxy, lake_bucket: Bucket) -> None:
    store = through(proxy, lake_bucket)
    proxy.use(always(fault, methods=("PUT",)))
    with pytest.raises(BaseError):
        obstore.put(store, "key", BODY, mode="create", use_multipart=False)
    assert proxy.injected == {fault: 1}
    [request] = proxy.requests
    assert request.status == (200 if fault in AFTER else 0)
    proxy.quiet()
    if fault in AFTER:
        assert bytes(obstore.get(store, "key").bytes()) == BODY
        with pytest.raises(AlreadyExistsError):
            obstore.put(store, "key", b"", mode="create", use_multipart=False)
    else:
        with pytest.raises(FileNotFoundError):
            obstore.get(store, "key")


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_answer_is_no_answer(fault: Fault, proxy: Proxy, lake_bucket: Bucket) -> None:
    store = through(proxy, lake_bucket)
    obstore.put(store, "key", BODY, use_multipart=False)
    proxy.use(always(fault, keys="/key$"))
    with pytest.raises(BaseError):
        obstore.get(store, "key").bytes()
    assert set(proxy.injected) == {"reset" if fault == "reset_upload" else fault}


@pytest.mark.parametrize("fault", ["delay", "trickle"])
def test_slow_is_not_broken(fault: Fault, proxy: Proxy, lake_bucket: Bucket) -> None:
    store = through(proxy, lake_bucket)
    proxy.use(always(fault, seconds=0.1))
    obstore.put(store, "key", BODY, use_multipart=False)
    assert bytes(obstore.get(store, "key").bytes()) == BODY
    assert proxy.injected == {fault: 2}


def test_faults_in_a_row_are_bounded(proxy: Proxy, lake_bucket: Bucket) -> None:
    proxy.use(always("error", in_a_row=2, keys="/bounded"))
    store = through(proxy, lake_bucket, {"max_retries": 2, "retry_timeout": timedelta(seconds=30)})
    for name in ("bounded/a", "bounded/b", "free"):
        obstore.put(store, name, BODY, use_multipart=False)
    assert [request.fault for request in proxy.requests] == ["error", "error", ""] * 2 + [""]


def test_faults_in_all_are_bounded(proxy: Proxy, lake_bucket: Bucket) -> None:
    proxy.use(always("slow_down", at_most=1))
    store = through(proxy, lake_bucket)
    with pytest.raises(BaseError, match="SlowDown"):
        obstore.put(store, "key", BODY, use_multipart=False)
    obstore.put(store, "key", BODY, use_multipart=False)


def test_chance_is_seeded(proxy: Proxy, lake_bucket: Bucket) -> None:
    store = through(proxy, lake_bucket)

    def met(plan: Plan) -> list[str]:
        proxy.use(plan)
        proxy.forget()
        for number in range(60):
            with suppress(BaseError, FileNotFoundError):
                obstore.head(store, f"{number % 20}")
        return [request.fault for request in proxy.requests]

    first = met(evenly(0.5, "error", "late_error", "late_reset", seed=1))
    assert {"", "error", "late_error", "late_reset"} == set(first)
    assert met(evenly(0.5, "error", "late_error", "late_reset", seed=1)) == first
    assert met(evenly(0.5, "error", "late_error", "late_reset", seed=2)) != first


def test_bodies_in_chunks_pass_as_they_are(proxy: Proxy, lake_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    # pyarrow sends aws-chunked bodies, several parts, and asks before it sends.
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    data = BODY * 60
    bucket = make_bucket(proxy.endpoint, lake_bucket.name)
    bucket.put("large", data)
    with bucket.files.open_input_file(f"{bucket.name}/large") as stream:
        assert stream.read() == data
