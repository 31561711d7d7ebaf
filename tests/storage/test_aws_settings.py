"""AWS settings that are not valid: one line names the variable and never shows its value."""

import pytest

from pipeline.errors import StorageError
from pipeline.storage.client import check_bucket, settings, storage_error

SECRET = "hunter2"  # noqa: S105 - of no account
KEYS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "x/y+z="}
ENDPOINTS = [
    "foo",
    "http://",
    "https://:9",
    "http:/host",
    "http://[::1",
    "http://host:notaport",
    "http://host:99999",
    "http://ho st",
    " http://host",
    "http://host\n",
    "http://hést",
    "ftp://host",
    f"http://user:{SECRET}@host",
    f"http://host/?token={SECRET}",
]


@pytest.fixture(autouse=True)
def only_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("AWS_ENDPOINT_URL", value) for value in ENDPOINTS),
        ("AWS_ENDPOINT_URL_S3", "foo"),
        ("AWS_REGION", "not a region"),
        ("AWS_DEFAULT_REGION", "eu\n"),
        ("AWS_ALLOW_HTTP", "maybe"),
        ("AWS_SKIP_SIGNATURE", "maybe"),
        ("AWS_SESSION_TOKEN", f"{SECRET}\nx"),
        ("AWS_SECRET_ACCESS_KEY", f"{SECRET} x"),
    ],
)
def test_a_setting_that_is_not_valid_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=rf"^{name} (is|has) .*then run the command again\.$") as raised:
        settings()
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("name", list(KEYS))
def test_half_a_pair_of_keys_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    with pytest.raises(StorageError, match=f"is set, but {name} is not"):
        settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"),
        ("AWS_ENDPOINT_URL", "http://[::1]:9000/path"),
        ("AWS_ENDPOINT_URL", "https://s3.example.com"),
        ("AWS_REGION", ""),
        ("AWS_ALLOW_HTTP", "TRUE"),
        ("AWS_SKIP_SIGNATURE", "1"),
    ],
)
def test_a_valid_setting_passes(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert settings()["aws_region"] == "us-east-1"


def test_a_setting_that_only_the_library_checks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONNECT_TIMEOUT", "soon")
    found = storage_error("s3://b/x", ValueError('Generic Config error: failed to parse "soon" as Duration'))
    assert str(found) == "AWS_CONNECT_TIMEOUT is not valid. Correct or unset it, then run the command again."


@pytest.mark.parametrize("place", ["s3://", "s3:///x", "s3://b ucket/x", "s3://bü/x", f"s3://user:{SECRET}@b/x"])
def test_a_bucket_of_no_valid_name_is_refused(place: str) -> None:
    with pytest.raises(StorageError) as raised:
        check_bucket(place)
    assert SECRET not in str(raised.value)
