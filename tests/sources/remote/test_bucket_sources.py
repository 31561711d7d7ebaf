"""Sources in a bucket: fetched once, again when they change, checked; against a real server of the S3 protocol."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from making import recipe
from s3 import DATA, KEY, SECRET, Bucket, cached, free_port, needs_rclone, part, serving, sha

from pipeline.errors import CheckError, SourceError
from pipeline.sources import is_fetched, resolve
from pipeline.sources.remote import fetch

pytestmark = pytest.mark.usefixtures("s3_variables")


@needs_rclone
def test_an_object_is_fetched_once_and_keeps_its_name_and_time(bucket: Bucket) -> None:
    uri = bucket.put("sets/a.tar.gz")
    assert not is_fetched(part(uri))
    file = fetch(part(uri))
    assert (file.name, file.read_bytes()) == ("a.tar.gz", DATA)
    assert file.stat().st_mtime_ns == bucket.files.get_file_info(f"{bucket.name}/sets/a.tar.gz").mtime_ns
    first = file.stat().st_ino
    assert fetch(part(uri)) == file
    assert file.stat().st_ino == first
    assert cached() == [file]
    assert is_fetched(part(uri))


@needs_rclone
def test_an_object_comes_in_pieces_and_as_it_is(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.remote._PIECE", 999)
    packed = gzip.compress(DATA)
    assert fetch(part(bucket.put("a.gz", packed), digest=sha(packed))).read_bytes() == packed
    assert fetch(part(bucket.put("a"))).read_bytes() == DATA
    assert fetch(part(bucket.put("empty", b""))).read_bytes() == b""


@needs_rclone
def test_a_changed_object_is_fetched_again(bucket: Bucket) -> None:
    uri = bucket.put("a")
    file = fetch(part(uri))
    bucket.put("a", b"other")
    assert not is_fetched(part(uri))
    assert file.read_bytes() == DATA
    assert fetch(part(uri)).read_bytes() == b"other"
    assert is_fetched(part(uri))
    assert cached() == [file]


@needs_rclone
@pytest.mark.parametrize("spoil", ["content", "note", "file", "no json"])
def test_a_cached_file_that_is_not_what_was_fetched_is_fetched_again(bucket: Bucket, spoil: str) -> None:
    uri = bucket.put("a")
    file = fetch(part(uri))
    note = file.parent / ".version.json"
    match spoil:
        case "content":
            file.write_bytes(b"spoiled")
        case "note":
            note.unlink()
        case "file":
            file.unlink()
        case _:
            note.write_text("[3]")
    assert not is_fetched(part(uri))
    assert fetch(part(uri)).read_bytes() == DATA


@needs_rclone
def test_a_digest_is_checked_and_makes_asking_needless(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = bucket.put("a")
    with pytest.raises(CheckError, match=f"{uri}: not the file that digest = {sha(b'x')} names: it has {sha(DATA)}"):
        fetch(part(uri, digest=sha(b"x")))
    assert cached() == []
    file = fetch(part(uri, digest=sha(DATA)))
    bucket.put("a", b"other")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert is_fetched(part(uri, digest=sha(DATA)))
    assert fetch(part(uri, digest=sha(DATA))).read_bytes() == DATA
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    assert not is_fetched(part(uri))
    with pytest.raises(CheckError, match="not the file that digest"):
        fetch(part(uri, digest=sha(b"more")))
    assert file.read_bytes() == DATA


@needs_rclone
@pytest.mark.parametrize(
    ("uri", "match"),
    [
        ("s3://{}/none", "there is no such object. Check the uri in the recipe"),
        ("s3://no-such-bucket/a", "There is no such bucket. Check the name"),
        ("s3://{}/sets", "a folder of its bucket. Name an object, or several, such as s3://.*/sets/"),
        ("s3://{}/sets/", "a folder of its bucket"),
        ("s3://{}", "a folder of its bucket"),
        ("s3://{}/a//b", "not a valid key of an object .*empty path segment"),
        ("s3://{}/none-*.tar", "d: no file matches"),
        ("s3://{}/none/*.tar", "d: no file matches"),
        ("s3://no-such-bucket/*.tar", "There is no such bucket. Check the name"),
    ],
)
def test_what_is_not_there_is_an_error(bucket: Bucket, tmp_path: Path, uri: str, match: str) -> None:
    bucket.put("sets/a.tar")
    with pytest.raises(SourceError, match=match) as caught:
        resolve(recipe(tmp_path, {"uri": uri.format(bucket.name)}))
    assert "\n" not in str(caught.value)
    assert cached() == []


@needs_rclone
@pytest.mark.parametrize("told", [{"SECRET_ACCESS_KEY": "wrong"}, {"ACCESS_KEY_ID": "who"}, {"SKIP_SIGNATURE": "true"}])
@pytest.mark.parametrize("key", ["a", "*"])
def test_a_refusal_is_an_error_that_says_which_variables_to_set(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: dict[str, str], key: str
) -> None:
    bucket.put("a")
    for name, value in told.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with pytest.raises(SourceError, match=f"s3://{bucket.name}.*: Access is denied. Set AWS_ACCESS_KEY_ID"):
        resolve(recipe(tmp_path, {"uri": f"s3://{bucket.name}/{key}"}))


@needs_rclone
def test_no_credentials_are_an_error_where_they_are_needed(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = bucket.put("a")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(SourceError, match="Access is denied. Set AWS_ACCESS_KEY_ID"):
        fetch(part(uri))


@needs_rclone
@pytest.mark.parametrize("file", ["SHARED_CREDENTIALS_FILE", "CONFIG_FILE"])
@pytest.mark.parametrize("profile", ["", "work"])
def test_credentials_come_from_a_profile(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, profile: str
) -> None:
    uri = bucket.put("a")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    section = "default" if not profile else f"profile {profile}" if file == "CONFIG_FILE" else profile
    (tmp_path / "aws").write_text(f"[{section}]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv(f"AWS_{file}", str(tmp_path / "aws"))
    monkeypatch.setenv("AWS_PROFILE", profile)
    assert fetch(part(uri)).read_bytes() == DATA
    monkeypatch.setenv("AWS_PROFILE", "other")
    with pytest.raises(SourceError, match="There is no AWS profile 'other'"):
        fetch(part(uri))


@needs_rclone
@pytest.mark.parametrize("skip", ["", "true"])
def test_an_open_bucket_needs_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skip: str) -> None:
    (tmp_path / "root" / "open").mkdir(parents=True)
    (tmp_path / "root" / "open" / "a").write_bytes(DATA)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", skip)
    with serving(tmp_path / "root") as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        assert fetch(part("s3://open/a")).read_bytes() == DATA


def test_a_service_that_is_not_there_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setattr("pipeline.storage.client._RETRY_DELAYS", (0.01,))
    monkeypatch.setattr("pipeline.storage.client.RETRIES", 1)
    hint = f"did not answer after several tries. Check AWS_ENDPOINT_URL .now {address}., AWS_REGION and the network"
    for ask in (fetch, is_fetched):
        with pytest.raises(SourceError, match=hint) as caught:
            ask(part("s3://bucket/a"))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["s3://", "s3:///a"])
def test_an_address_without_a_bucket_is_an_error(uri: str) -> None:
    with pytest.raises(SourceError, match=f"{uri}: names no bucket"):
        fetch(part(uri))


@needs_rclone
def test_an_object_that_changes_while_it_is_fetched_is_an_error(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = bucket.put("a")

    def pieces(_: str) -> Iterator[bytes]:
        yield DATA[:100]
        bucket.put("a", b"other")
        yield DATA[100:]

    with monkeypatch.context() as held:
        held.setattr("pipeline.sources.remote._pieces", pieces)
        with pytest.raises(SourceError, match="changed while it was fetched. Build again"):
            fetch(part(uri))
    with monkeypatch.context() as held:
        held.setattr("pipeline.sources.remote._pieces", lambda _: iter([b"oth"]))
        with pytest.raises(SourceError, match="changed while it was fetched"):
            fetch(part(uri))
    assert cached() == []
    assert fetch(part(uri)).read_bytes() == b"other"


@needs_rclone
def test_a_cache_that_cannot_be_written_is_an_error(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = bucket.put("a")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("IMAGELAKE_CACHE", str(tmp_path / "file"))
    with pytest.raises(SourceError, match="cannot be kept in .*Set IMAGELAKE_CACHE"):
        fetch(part(uri))
