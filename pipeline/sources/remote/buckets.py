"""Sources in a bucket, `s3://bucket/key`: fetched into the cache once, and again when the object has changed.

Who asks, and where, is told by the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or
AWS_PROFILE with its files; AWS_REGION or AWS_DEFAULT_REGION; AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL for a service that
is not Amazon's. Without credentials, or with AWS_SKIP_SIGNATURE=true, the bucket is asked as anybody may ask it.

An object with a `digest` in the recipe that was fetched before is not asked for again.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from pipeline.errors import CheckError, SourceError
from pipeline.progress import plain
from pipeline.recipe import SourcePart
from pipeline.sources.source import one_line

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, S3FileSystem

_SCHEME = "s3://"
_PIECE = 2**23
# Of every request, by the client itself.
_TRIES = 3
_SECONDS = 20
# All that makes one client another.
_VARIABLES = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_SKIP_SIGNATURE",
    "AWS_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
# Beside a fetched object: which version of it this is.
_NOTE = ".version.json"
# What Amazon's client says, and what to do about it.
_HINTS = {
    "Bucket .* not found": "There is no such bucket: check the uri in the recipe",
    "NETWORK_CONNECTION|curlCode|TIMEOUT": "The service cannot be reached: check AWS_ENDPOINT_URL{endpoint} and the "
    "network",
    "ACCESS_DENIED|SIGNATURE|INVALID_ACCESS_KEY|TOKEN|CREDENTIALS|HTTP status 40[013]": "The service refuses: set "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, to credentials that may read it, or, if everybody "
    "may, AWS_SKIP_SIGNATURE=true",
    "": "Check the uri, AWS_ENDPOINT_URL{endpoint}, AWS_REGION and the credentials",
}


class _Version(NamedTuple):
    size: int
    time: int  # of its last change, in nanoseconds


def is_bucket(uri: str) -> bool:
    """Tell whether a uri names something in a bucket."""
    return uri.startswith(_SCHEME)


def exists(uri: str) -> bool:
    """Tell whether there is an object of just this name.

    Raises:
        SourceError: the bucket cannot be asked.
    """
    return bool(_look(uri).is_file)


def names_below(uri: str, *, deep: bool) -> list[str]:
    """List the objects below a prefix.

    Args:
        uri: a bucket or a folder of it.
        deep: also those in folders.

    Returns:
        Their names behind the prefix, in no order; none where the bucket or the prefix is not there.

    Raises:
        SourceError: the bucket cannot be asked.
    """
    from pyarrow.fs import FileSelector  # noqa: PLC0415 - slow to import

    place = _place(uri)
    with _asking(uri):
        found = _files(uri).get_file_info(FileSelector(place, allow_not_found=True, recursive=deep))
    return [info.path.removeprefix(f"{place}/") for info in found if info.is_file]


def is_current(part: SourcePart, file: Path) -> bool:
    """Tell whether the cache holds an object as it is now.

    Raises:
        SourceError: the bucket cannot be asked.
    """
    return _is_pinned(part, file) or (part.digest is None and _noted(file) == _version(part.uri))


def fetch_object(part: SourcePart, file: Path) -> None:
    """Bring an object into the cache, unless it is there as it is now.

    What is in the cache is whole: it is written under another name first, and has the object's time.

    Args:
        part: a source whose `uri` is that of an object.
        file: where it goes.

    Raises:
        CheckError: what came does not have the recipe's digest; it is not kept.
        SourceError: there is no such object, it cannot be fetched, or it changed meanwhile.
        OSError: the cache cannot be written.
    """
    if _is_pinned(part, file):
        return
    version = _version(part.uri)
    if _noted(file) == version and part.digest is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as stream:
            _download(part, version, stream)
        os.utime(name, ns=(version.time, version.time))
        # Without a note, a file in the cache is fetched again.
        (file.parent / _NOTE).unlink(missing_ok=True)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    (file.parent / _NOTE).write_text(json.dumps({**version._asdict(), "digest": part.digest}), encoding="utf-8")


def _download(part: SourcePart, version: _Version, stream: IO[bytes]) -> None:
    digest = hashlib.new(part.digest.split(":")[0] if part.digest else "md5", usedforsecurity=False)
    name = part.uri.rpartition("/")[2]
    with tqdm(desc=plain(name), total=version.size, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for piece in _pieces(part.uri):
            stream.write(piece)
            digest.update(piece)
            bar.update(len(piece))
    if stream.tell() != version.size or _version(part.uri) != version:
        raise SourceError(f"{part.uri}: changed while it was fetched. Build again.")
    found = f"{digest.name}:{digest.hexdigest()}"
    if part.digest not in (None, found):
        raise CheckError(f"{part.uri}: not the file that digest = {part.digest} names: it has {found}.")


def _pieces(uri: str) -> Iterator[bytes]:
    # Unpacked on the way, as Arrow would by the name, an archive would not have the digest that its publisher gives.
    with _asking(uri), _files(uri).open_input_stream(_place(uri), compression=None) as source:
        while piece := source.read(_PIECE):
            yield piece


def _version(uri: str) -> _Version:
    info = _look(uri)
    if info.is_file:
        return _Version(info.size, info.mtime_ns)
    if info.type == info.type.Directory:
        raise SourceError(
            f"{uri}: a folder of its bucket. Name an object, or several, such as {uri.rstrip('/')}/*.tar."
        )
    raise SourceError(f"{uri}: there is no such object, or no such bucket. Check the uri in the recipe.")


def _look(uri: str) -> "FileInfo":
    with _asking(uri):
        return _files(uri).get_file_info(_place(uri))


def _is_pinned(part: SourcePart, file: Path) -> bool:
    return part.digest is not None and _note_of(file).get("digest") == part.digest


def _noted(file: Path) -> _Version | None:
    note = _note_of(file)
    return _Version(note["size"], note["time"]) if note else None


def _note_of(file: Path) -> dict[str, Any]:
    """Read which version of an object a file is; nothing where there is no file, or another than was noted."""
    try:
        note: dict[str, Any] = json.loads((file.parent / _NOTE).read_bytes())
        found = file.stat()
        return note if (note["size"], note["time"]) == (found.st_size, found.st_mtime_ns) else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _place(uri: str) -> str:
    return uri.removeprefix(_SCHEME).strip("/")


def _files(uri: str) -> "S3FileSystem":
    return _client(_place(uri).split("/")[0], tuple(map(os.environ.get, _VARIABLES)))


@lru_cache(maxsize=8)
def _client(bucket: str, values: tuple[str | None, ...]) -> "S3FileSystem":
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region  # noqa: PLC0415 - slow to import

    told = dict(zip(_VARIABLES, values, strict=True))
    endpoint = told["AWS_ENDPOINT_URL_S3"] or told["AWS_ENDPOINT_URL"]
    region = told["AWS_REGION"] or told["AWS_DEFAULT_REGION"]
    return S3FileSystem(
        anonymous=(told["AWS_SKIP_SIGNATURE"] or "").lower() in ("true", "1"),
        region=region or (None if endpoint else resolve_s3_region(bucket)),
        endpoint_override=endpoint,
        connect_timeout=_SECONDS,
        request_timeout=_SECONDS,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_TRIES),
    )


@contextmanager
def _asking(uri: str) -> Iterator[None]:
    """Turn what the client raises into an error that says what to do. Arrow's own errors are ValueErrors."""
    try:
        yield
    except (OSError, ValueError) as error:
        said = one_line(error)
        hint = next(hint for words, hint in _HINTS.items() if re.search(words, said))
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        hint = hint.format(endpoint=f" (now {endpoint})" if endpoint else "")
        raise SourceError(f"{uri}: cannot be fetched ({said}). {hint}.") from error
