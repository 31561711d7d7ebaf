"""Download sources that are named by an address into a cache of local files, and expand patterns.

A file from an http(s) address is downloaded once and then kept. Set `digest`, or use another address, when its content
changes. An object of a bucket, `s3://bucket/key`, is downloaded again when its size or time has changed; an object with
a `digest` that is in the cache is not looked up again. Credentials and endpoint: see `pipeline.storage`.

User names, passwords and queries of addresses are only used for the request. The cache and all messages know a file by
the rest of its address.

Patterns are such as `data/train-*.parquet`, `sets/**/batch-[0-9].npz` and `s3://bucket/train-*.tar`. `*` and `?` match
characters of one name, `[...]` one of several characters, `**` any number of folders. A name that begins with a dot
only matches a pattern that begins with a dot. A file or object whose name is the pattern itself comes first.

Every matching file is a source of its own, even if there is only one, and its paths begin with its name: they do not
change when more files are added. Images of a file that is removed stay in the lake until `imagelake build --prune`.
"""

import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import xxhash
from tqdm import tqdm

from pipeline import storage
from pipeline.addresses import identity
from pipeline.errors import CheckError, RecipeError, SourceError, StorageError, one_line
from pipeline.progress import plain
from pipeline.recipe import SourcePart
from pipeline.sources.source import readable_name

if TYPE_CHECKING:
    import requests


# Seconds to wait before the second and the third try of an http(s) download.
_RETRY_DELAYS = (1, 4)
# Seconds to wait for a server, and headers of requests: an encoding would unpack the file, and its digest would not be
# the one that its publisher gives.
_TIMEOUT, _NO_ENCODING = 30, {"Accept-Encoding": "identity"}
# First bytes of a web page. No source begins so: servers send a page instead of a file for a login or an error.
_WEB_PAGE = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script")
# How far to look for the error of the system that made a download fail.
_MOST_CAUSES = 10
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
    if part.missing_secrets and not file.exists():
        raise lacking_error(part)
    download = _fetch_object if storage.is_bucket(part.uri) else _fetch_http
    try:
        download(part, file)
    except OSError as error:
        raise SourceError(f"{part.uri}: cannot be kept in {file.parent} ({error}). Set IMAGELAKE_CACHE.") from error
    return file


def lacks_secrets(part: SourcePart) -> bool:
    """Return whether a source cannot be downloaded, because its address lacks secrets, and is not in the cache."""
    return is_url(part.uri) and bool(part.missing_secrets) and not _cache_path(part).exists()


def lacking_error(part: SourcePart) -> SourceError:
    """Return the error of a source whose address lacks secrets."""
    return SourceError(
        f"{part.dataset}: {part.uri} cannot be fetched without {' and '.join(part.missing_secrets)}. Write the whole "
        "address into the recipe, or set the variable, and build again."
    )


def _cache_path(part: SourcePart) -> Path:
    # Keys of a bucket are not URL-encoded.
    uri = identity(part.uri)
    path = uri if storage.is_bucket(uri) else unquote(urlsplit(uri).path)
    name = Path(path).name.lstrip(".") or "download"
    file = cache_folder() / xxhash.xxh3_64_hexdigest(uri.encode()) / name
    if part.written != uri and not file.exists():
        _move_cached(part, file)
    return file


def _move_cached(part: SourcePart, file: Path) -> None:
    """Move a file that version 0.5 kept in a folder whose name is a digest of the address with its secrets."""
    old = cache_folder() / xxhash.xxh3_64_hexdigest(part.written.encode())
    with suppress(OSError):
        if (old / file.name).is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            (old / file.name).replace(file)
            old.rmdir()


def _fetch_http(part: SourcePart, file: Path) -> None:
    import pooch  # noqa: PLC0415
    import requests  # noqa: PLC0415 - a dependency of pooch: needed for its errors

    pooch.get_logger().setLevel("WARNING")
    registry = pooch.create(file.parent, base_url="", registry={file.name: part.digest}, urls={file.name: part.address})
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), chunk_size=2**16, timeout=_TIMEOUT, headers=_NO_ENCODING
    )

    def download(address: str, target: str, registry: Any) -> None:  # noqa: ANN401 - pooch has no types
        downloader(address, target, registry)
        _reject_web_page(part, Path(target))

    if file.exists() and part.digest is None and _is_another_file(part, file):
        file.unlink()
    try:
        _with_retries(lambda: registry.fetch(file.name, downloader=download))
    except requests.RequestException as error:
        # Not from the error, and without its text: it may quote the address, or that of a redirect.
        reason = _describe(error)
        raise SourceError(f"{part.uri}: cannot be fetched ({reason}). Check the URL and the network.") from None
    except CheckError:
        raise
    except ValueError as error:
        raise CheckError(f"{part.uri}: not the file that digest = {part.digest} names ({error}).") from None


def _is_another_file(part: SourcePart, file: Path) -> bool:
    """Return whether an address with a query now names a file of another size than the one in the cache.

    The cache does not store queries, so `?id=1` and `?id=2` have the same place in it. If the server does not answer,
    as for an address that has expired, the file in the cache counts.
    """
    import requests  # noqa: PLC0415

    if "?" not in part.written:
        return False
    try:
        with requests.get(part.address, headers=_NO_ENCODING, stream=True, timeout=_TIMEOUT) as response:
            size = response.headers.get("Content-Length", "")
    except requests.RequestException:
        return False
    return response.ok and size.isdecimal() and int(size) != file.stat().st_size


def _describe(error: "requests.RequestException") -> str:
    """Describe an error of a download without quoting its address."""
    if error.response is not None and not error.response.ok:
        return f"{error.response.status_code} {error.response.reason or ''}".rstrip()
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    host = urlsplit(str(error.request.url)).hostname if error.request is not None else None
    cause = next((str(found) for found in _causes(error) if isinstance(found, OSError) and found.strerror), "")
    return words + (f" with {host}" if host else "") + (f": {cause}" if cause else "")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_MOST_CAUSES):
        if error is None:
            return
        yield error
        inner = [getattr(error, "reason", None), *error.args, error.__cause__, error.__context__]
        error = next((one for one in inner if isinstance(one, BaseException)), None)


def _reject_web_page(part: SourcePart, file: Path) -> None:
    with file.open("rb") as stream:
        head = stream.read(512)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_WEB_PAGE):
        raise CheckError(
            f"{part.uri}: the server sent a web page instead of a file. Open the URL in a browser: it may need a "
            "login, or redirect to another URL."
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


_MAGIC = re.compile(r"[*?\[]")
_ANY_FOLDERS = "**"


class Match(NamedTuple):
    """A file that matches a pattern.

    Attributes:
        part: the source of the recipe, with the uri of the file.
        prefix: put before its paths: the part of its path from the first pattern on, and "/".
    """

    part: SourcePart
    prefix: str


def is_glob(part: SourcePart, base: Path) -> bool:
    """Return whether the uri of a source is a pattern; patterns in http(s) addresses are not supported.

    Args:
        part: a source of the recipe.
        base: the folder that relative paths start from.

    Raises:
        SourceError: the bucket does not answer, or refuses.
    """
    if not _MAGIC.search(part.uri):
        return False
    if storage.is_bucket(part.uri):
        with bucket_errors(part.uri):
            return not storage.exists(part.uri)
    return "://" not in part.uri and not (base / part.uri).exists()


def expand(part: SourcePart, base: Path) -> list[Match]:
    """Find the files that match a pattern.

    Args:
        part: a source of the recipe whose uri is a pattern.
        base: the folder that relative paths start from.

    Returns:
        The files, ordered by name.

    Raises:
        RecipeError: the source has keys for a single file, or the pattern is not valid.
        SourceError: nothing matches, or a folder or bucket cannot be listed.
    """
    odd = [key for key in ("bytes", "digest") if getattr(part, key) is not None]
    if odd:
        raise RecipeError(
            f"source {part.uri}: {', '.join(odd)} is only valid for one file, and the uri is a pattern. Remove it, or "
            "name each file in its own [[source]]."
        )
    fixed, pattern = _split_pattern(part)
    if storage.is_bucket(part.uri):
        with bucket_errors(part.uri):
            names = list(storage.list_files(fixed, deep=len(pattern) > 1))
        found = [name for name in names if _fits(name.split("/"), pattern)]
    else:
        found = sorted(set(_find(part, base / fixed, pattern)))
    if not found:
        raise SourceError(
            f"{part.dataset}: no file matches {part.uri}. Patterns only match files: name a folder of images without "
            "a pattern. Check the uri in the recipe."
        )
    odd = [readable_name(name) for name in found if readable_name(name) != name]
    if odd:
        raise SourceError(f"{part.dataset}: {part.uri}: the name {odd[0]} is not UTF-8. Rename the file.")
    start = fixed if not fixed or fixed.endswith("/") else f"{fixed}/"
    return [Match(part.model_copy(update={"uri": f"{start}{name}"}), f"{name}/") for name in found]


def _split_pattern(part: SourcePart) -> tuple[str, list[str]]:
    """Split a uri into the folder before the first pattern, and the names and patterns after it."""
    names = part.uri.split("/")
    first = next(position for position, name in enumerate(names) if _MAGIC.search(name))
    fixed = "/".join(names[:first]) or ("/" if first else "")
    pattern = [name for name in names[first:] if name not in ("", ".")]
    if ".." in pattern or any(_ANY_FOLDERS in name != _ANY_FOLDERS for name in pattern):
        raise RecipeError(
            f"source {part.uri}: after the first *, ? or [, '..' is not allowed, and ** must stand alone between "
            "slashes."
        )
    if fixed == "s3:/":
        raise RecipeError(f"source {part.uri}: the bucket must be named without *, ? or [.")
    return fixed, [*pattern, "*"] if pattern[-1] == _ANY_FOLDERS else pattern


def _find(part: SourcePart, folder: Path, pattern: Sequence[str], front: str = "") -> Iterator[str]:
    head, rest = pattern[0], pattern[1:]
    entries = _entries(part, folder)
    if head == _ANY_FOLDERS:
        yield from _find(part, folder, rest, front)
        # Links are not followed: they may never end.
        entries = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        head, rest = "*", pattern
    for entry in entries:
        if _matches_name(entry.name, head):
            if rest and entry.is_dir():
                yield from _find(part, folder / entry.name, rest, f"{front}{entry.name}/")
            elif not rest and not entry.is_dir():
                yield f"{front}{entry.name}"


def _entries(part: SourcePart, folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{part.dataset}: {part.uri}: cannot list {folder} ({reason}). Check the uri.") from error


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    if not names or not pattern:
        return not names and not pattern
    head, rest = pattern[0], pattern[1:]
    if head != _ANY_FOLDERS:
        return _matches_name(names[0], head) and _fits(names[1:], rest)
    return _fits(names, rest) or (_matches_name(names[0], "*") and _fits(names[1:], pattern))


def _matches_name(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))
