"""Download sources that are named by an address into a cache of local files.

A file from an http(s) address is downloaded once and then kept. Set `digest`, or use another address, when its content
changes. An object of a bucket, `s3://bucket/key`, is downloaded again when its size or time has changed; an object with
a `digest` that is in the cache is not looked up again. Credentials and endpoint: see `pipeline.storage`.
"""

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import xxhash
from tqdm import tqdm

from pipeline import storage
from pipeline.errors import CheckError, SourceError, StorageError, one_line
from pipeline.progress import plain
from pipeline.recipe import SourcePart

if TYPE_CHECKING:
    import requests

# Seconds to wait before the second and the third try of an http(s) download.
_RETRY_DELAYS = (1, 4)
# First bytes of a web page. No source begins so: servers send a page instead of a file for a login or an error.
_WEB_PAGE = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script")
# Bytes of an object that are written to the cache at a time.
_PIECE = 2**23
# File beside a downloaded object: the version of the object.
_VERSION_FILE = ".version.json"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Version(NamedTuple):
    """Size of an object in bytes, and the time of its last change in nanoseconds."""

    size: int
    time: int


def is_url(uri: str) -> bool:
    """Return whether a uri is an http(s) address or names an object in a bucket."""
    return uri.startswith(("http://", "https://")) or storage.is_bucket(uri)


def cache_folder() -> Path:
    """Return the folder of downloaded files: `IMAGELAKE_CACHE`, or the user's cache folder."""
    import pooch  # noqa: PLC0415 - imports requests: only needed for downloads

    return Path(os.environ.get("IMAGELAKE_CACHE") or pooch.os_cache("imagelake"))


def is_cached(part: SourcePart) -> bool:
    """Return whether the file of an address is in the cache; for an object of a bucket, its current version.

    Raises:
        SourceError: the bucket does not answer, or refuses.
    """
    file = _cache_path(part)
    return _is_current(part, file) if storage.is_bucket(part.uri) else file.exists()


def fetch(part: SourcePart) -> Path:
    """Download a source, unless it is in the cache.

    A file is downloaded under another name and renamed when it is complete and passes the digest, so every file in the
    cache is complete. Web pages are not kept.

    Args:
        part: a source whose `uri` is an address. With a `digest`, a cached file with another digest is downloaded
            again.

    Returns:
        The file in the cache. Its name is that of the address, its folder is derived from the whole address.

    Raises:
        CheckError: the file does not have the recipe's digest, or is a web page.
        SourceError: the server cannot be reached or refuses, the object does not exist or changed during the download,
            or the cache cannot be written.
    """
    file = _cache_path(part)
    download = _fetch_object if storage.is_bucket(part.uri) else _fetch_http
    try:
        download(part, file)
    except OSError as error:
        raise SourceError(f"{part.uri}: cannot be kept in {file.parent} ({error}). Set IMAGELAKE_CACHE.") from error
    return file


def _cache_path(part: SourcePart) -> Path:
    # Keys of a bucket are not URL-encoded.
    path = part.uri if storage.is_bucket(part.uri) else unquote(urlsplit(part.uri).path)
    name = Path(path).name.lstrip(".") or "download"
    return cache_folder() / xxhash.xxh3_64_hexdigest(part.uri.encode()) / name


def _fetch_http(part: SourcePart, file: Path) -> None:
    import pooch  # noqa: PLC0415
    import requests  # noqa: PLC0415 - a dependency of pooch: needed for its errors

    pooch.get_logger().setLevel("WARNING")
    registry = pooch.create(file.parent, base_url="", registry={file.name: part.digest}, urls={file.name: part.uri})
    # A transfer encoding would unpack the file, and its digest would not be the one that its publisher gives.
    headers = {"Accept-Encoding": "identity"}
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**16, timeout=30, headers=headers)

    def download(address: str, target: str, registry: Any) -> None:  # noqa: ANN401 - pooch has no types
        downloader(address, target, registry)
        _reject_web_page(part, Path(target))

    try:
        _with_retries(lambda: registry.fetch(file.name, downloader=download))
    except requests.RequestException as error:
        raise SourceError(f"{part.uri}: cannot be fetched ({error}). Check the address and the network.") from error
    except CheckError:
        raise
    except ValueError as error:
        raise CheckError(f"{part.uri}: not the file that digest = {part.digest} names ({error}).") from error


def _reject_web_page(part: SourcePart, file: Path) -> None:
    with file.open("rb") as stream:
        head = stream.read(512)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_WEB_PAGE):
        raise CheckError(
            f"{part.uri}: the server sent a web page instead of a file. Open the address in a browser: it may need a "
            "login, or show another address."
        )


def _with_retries(attempt: Callable[[], str]) -> str:
    import requests  # noqa: PLC0415

    for delay in _RETRY_DELAYS:
        try:
            return _closing_response(attempt)
        except requests.RequestException as error:
            # Also a ValueError: a redirect to an address that cannot be downloaded, such as file:///.
            if isinstance(error, ValueError) or not _is_transient(error.response):
                raise
        time.sleep(delay)
    return _closing_response(attempt)


def _closing_response(attempt: Callable[[], str]) -> str:
    import requests  # noqa: PLC0415

    try:
        return attempt()
    except requests.RequestException as error:
        # pooch leaves the connection of a refused request open.
        if error.response is not None:
            error.response.close()
        raise


def _is_transient(response: "requests.Response | None") -> bool:
    if response is None:
        return True
    return (
        response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status_code == HTTPStatus.TOO_MANY_REQUESTS
    )


@contextmanager
def bucket_errors(uri: str) -> Iterator[None]:
    """Raise the errors of a bucket as SourceError: the source cannot be read."""
    try:
        yield
    except SourceError:
        raise
    except FileNotFoundError as error:
        raise SourceError(f"{uri}: there is no such object. Check the uri in the recipe.") from error
    except StorageError as error:
        raise SourceError(str(error)) from error
    except ValueError as error:  # raised by obstore
        raise SourceError(f"{uri}: not a valid key of an object ({one_line(error)}). Check the uri.") from error


def _fetch_object(part: SourcePart, file: Path) -> None:
    """Download an object of a bucket, unless its current version is in the cache; the file gets the object's time."""
    if _has_digest(part, file):
        return
    found = _find_object(part.uri)
    version = _version_of(found)
    if part.digest is None and _cached_version(file) == version:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as stream:
            _download_object(part, found, stream)
        os.utime(name, ns=(version.time, version.time))
        # A cached file without a version file is downloaded again.
        (file.parent / _VERSION_FILE).unlink(missing_ok=True)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    record = {**version._asdict(), "digest": part.digest}
    (file.parent / _VERSION_FILE).write_text(json.dumps(record), encoding="utf-8")


def _download_object(part: SourcePart, found: storage.ObjectInfo, stream: IO[bytes]) -> None:
    digest = hashlib.new(part.digest.split(":")[0] if part.digest else "md5", usedforsecurity=False)
    name = part.uri.rpartition("/")[2]
    with tqdm(desc=plain(name), total=found.size, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for piece in _pieces(part.uri):
            stream.write(piece)
            digest.update(piece)
            bar.update(len(piece))
    if stream.tell() != found.size or _find_object(part.uri) != found:
        raise SourceError(f"{part.uri}: changed while it was fetched. Build again.")
    actual = f"{digest.name}:{digest.hexdigest()}"
    if part.digest not in (None, actual):
        raise CheckError(f"{part.uri}: not the file that digest = {part.digest} names: it has {actual}.")


def _pieces(uri: str) -> Iterator[bytes]:
    with bucket_errors(uri):
        yield from storage.stream(uri, _PIECE)


def _find_object(uri: str) -> storage.ObjectInfo:
    """Look up an object.

    Raises:
        SourceError: there is none, or the bucket does not answer, or refuses.
    """
    bucket, _, key = uri.removeprefix(storage.SCHEME).strip("/").partition("/")
    if not bucket or uri.startswith(f"{storage.SCHEME}/"):
        raise SourceError(f"{uri}: names no bucket. Write s3://bucket/key.")
    with bucket_errors(uri):
        found = storage.head(uri.rstrip("/")) if key else None
        if found is not None:
            return found
        if not key or storage.is_prefix(uri):
            raise SourceError(
                f"{uri}: a folder of its bucket. Name an object, or several, such as {uri.rstrip('/')}/*.tar."
            )
    raise SourceError(f"{uri}: there is no such object. Check the uri in the recipe.")


def _version_of(found: storage.ObjectInfo) -> _Version:
    return _Version(found.size, (found.time - _EPOCH) // timedelta(microseconds=1) * 1000)


def _is_current(part: SourcePart, file: Path) -> bool:
    if part.digest is not None:
        return _has_digest(part, file)
    return _cached_version(file) == _version_of(_find_object(part.uri))


def _has_digest(part: SourcePart, file: Path) -> bool:
    return part.digest is not None and _version_record(file).get("digest") == part.digest


def _cached_version(file: Path) -> _Version | None:
    record = _version_record(file)
    return _Version(record["size"], record["time"]) if record else None


def _version_record(file: Path) -> dict[str, Any]:
    """Read the version file of a cached object; empty if there is none, or if the cached file was changed."""
    try:
        record: dict[str, Any] = json.loads((file.parent / _VERSION_FILE).read_bytes())
        found = file.stat()
        return record if (record["size"], record["time"]) == (found.st_size, found.st_mtime_ns) else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
