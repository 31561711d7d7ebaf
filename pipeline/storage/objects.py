"""Files of a folder and objects of a bucket, through the same functions.

A place is a string: a path, or `s3://bucket/key`.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from pipeline.storage.client import (
    REQUEST_SECONDS,
    RETRIES,
    RETRY_SECONDS,
    SCHEME,
    check_bucket,
    settings,
    storage_errors,
    store_of,
    with_retries,
)

if TYPE_CHECKING:
    from obstore.store import S3Store


class ObjectInfo(NamedTuple):
    """An object of a bucket.

    Attributes:
        size: bytes.
        tag: ETag: changes whenever the content is written.
        time: of the last write, by the bucket's clock.
    """

    size: int
    tag: str
    time: datetime


def is_bucket(place: str) -> bool:
    """Return whether a place is in a bucket."""
    return place.startswith(SCHEME)


def normalized(place: str | Path) -> str:
    """Return a place as text; a place in a bucket has no slash at its end."""
    text = str(place)
    return f"{SCHEME}{text.removeprefix(SCHEME).strip('/')}" if is_bucket(text) else text


def resolved(place: str) -> str:
    """Return the one spelling of a place: a path on disk is absolute and without links."""
    return normalized(place) if is_bucket(place) else str(Path(place).resolve())


def last_name(place: str) -> str:
    """Return the last part of a place."""
    return resolved(place).rpartition("/")[2]


def delta_options(place: str) -> dict[str, str] | None:
    """Return the options with which deltalake reads and writes at a place; None for a folder."""
    if not is_bucket(place):
        return None
    return {
        **_client_options(place),
        "aws_conditional_put": "etag",
        "max_retries": str(RETRIES),
        "retry_timeout": f"{RETRY_SECONDS}s",
        "backoff_config.init_backoff": "100ms",
        "backoff_config.max_backoff": "5s",
    }


def polars_options(place: str) -> dict[str, Any] | None:
    """Return the options with which Polars reads at a place; None for a folder."""
    if not is_bucket(place):
        return None
    return {**_client_options(place), "max_retries": RETRIES, "retry_timeout_ms": RETRY_SECONDS * 1000}


def _client_options(place: str) -> dict[str, str]:
    check_bucket(place)
    options = settings()
    is_http = options.get("aws_endpoint", "").startswith("http://")
    return {**options, "allow_http": str(is_http).lower(), "timeout": f"{REQUEST_SECONDS}s"}


def exists(name: str) -> bool:
    """Return whether there is a file or object of exactly this name."""
    return head(name) is not None if is_bucket(name) else Path(name).exists()


def head(name: str) -> ObjectInfo | None:
    """Return size, ETag and time of an object; None if there is none."""
    import obstore  # noqa: PLC0415 - only imported where buckets are used

    store, key = store_of(name)
    try:
        meta = with_retries(name, lambda: obstore.head(store, key))
    except FileNotFoundError:
        return None
    return ObjectInfo(meta["size"], meta["e_tag"] or "", meta["last_modified"])


def read(name: str) -> bytes:
    """Read a file or object.

    Raises:
        FileNotFoundError: there is none.
        StorageError: the bucket does not answer, or refuses.
    """
    if not is_bucket(name):
        check_regular(name)
        return Path(name).read_bytes()
    import obstore  # noqa: PLC0415

    store, key = store_of(name)
    return with_retries(name, lambda: bytes(obstore.get(store, key).bytes()))


def read_start(name: str, length: int) -> bytes:
    """Read the first bytes of a file or object; see `read`."""
    if is_bucket(name):
        return read_range(name, 0, length)
    check_regular(name)
    with Path(name).open("rb") as stream:
        return stream.read(length)


def read_range(name: str, start: int, length: int) -> bytes:
    """Read a range of bytes of an object; fewer bytes if it ends earlier.

    Raises:
        FileNotFoundError: there is no such object.
        StorageError: the bucket does not answer, or refuses.
    """
    import obstore  # noqa: PLC0415

    store, key = store_of(name)
    return with_retries(name, lambda: bytes(obstore.get_range(store, key, start=start, length=length)))


def stream(name: str, piece: int) -> Iterator[bytes]:
    """Read an object from start to end; the client continues after a broken connection.

    Args:
        name: a place in a bucket.
        piece: fewest bytes of each piece but the last.

    Raises:
        FileNotFoundError: there is no such object.
        StorageError: the bucket does not answer, or refuses.
    """
    import obstore  # noqa: PLC0415

    store, key = store_of(name, streaming=True)
    with storage_errors(name):
        for data in obstore.get(store, key).stream(min_chunk_size=piece):
            yield bytes(data)


def write(name: str, content: bytes | IO[bytes]) -> None:
    """Write an object in one step, and replace the one that is there.

    Args:
        name: a place in a bucket.
        content: bytes, or a file; a large file is uploaded in parts.

    Raises:
        StorageError: the bucket does not answer, or refuses.
    """
    import obstore  # noqa: PLC0415

    store, key = store_of(name)

    def put() -> None:
        if not isinstance(content, bytes):
            content.seek(0)
        obstore.put(store, key, content)

    with_retries(name, put)


def write_if_unchanged(name: str, content: bytes, tag: str | None) -> ObjectInfo | None:
    """Write an object only if it has not changed: of two writers, only one succeeds.

    Args:
        name: a place in a bucket.
        content: bytes that no other writer writes.
        tag: ETag that the object must have; None if there must be no object.

    Returns:
        The new object; None if the object has changed, and then nothing was written.

    Raises:
        StorageError: the bucket does not answer, or refuses.
    """
    import obstore  # noqa: PLC0415
    from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415

    store, key = store_of(name)
    # Without quotes: some services compare with the bare digest, the others accept both.
    mode: Any = "create" if tag is None else {"e_tag": tag.strip('"')}

    def put() -> bool:
        try:
            obstore.put(store, key, content, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            # If the reply to a try was lost, the next try fails because the first one has changed the object.
            with suppress(FileNotFoundError):
                return read(name) == content
            return False
        return True

    return head(name) if with_retries(name, put) else None


def delete(names: Iterable[str]) -> None:
    """Delete files or objects; missing ones are ignored.

    Raises:
        StorageError: the bucket does not answer, or refuses.
        OSError: a file cannot be deleted.
    """
    for name in names:
        with suppress(FileNotFoundError):
            _delete_object(name) if is_bucket(name) else Path(name).unlink()


def _delete_object(name: str) -> None:
    import obstore  # noqa: PLC0415

    store, key = store_of(name)
    with_retries(name, lambda: obstore.delete(store, key))


def check_regular(file: str | Path, *, folders: bool = True) -> None:
    """Check that a file is a regular one, or a link to one: opening a pipe would wait forever, a device never ends.

    Args:
        file: the file.
        folders: accept a folder too, which fails when it is read.

    Raises:
        OSError: it is a pipe, socket or device, a folder, or does not exist.
    """
    mode = os.stat(file).st_mode  # noqa: PTH116 - a Path for each of many files is slow
    if stat.S_ISDIR(mode):
        if not folders:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(file))
    elif not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a pipe, socket or device", os.fspath(file))


def list_files(place: str, *, deep: bool = True) -> Iterator[str]:
    """List the files or objects below a place.

    Args:
        place: a folder, or a prefix of a bucket.
        deep: also those in folders below it.

    Yields:
        The part of each name behind the place, in order.

    Raises:
        StorageError: the bucket does not answer, or refuses.
    """
    if not is_bucket(place):
        if not deep:
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as entries:
                yield from sorted(entry.name for entry in entries if entry.is_file())
            return
        found = (file.relative_to(place).as_posix() for file in Path(place).rglob("*") if file.is_file())
        yield from sorted(found)
        return
    import obstore  # noqa: PLC0415

    store, prefix = _prefix_of(place)

    def listed() -> list[str]:
        if not deep:
            return [item["path"] for item in obstore.list_with_delimiter(store, prefix)["objects"]]
        return [item["path"] for chunk in obstore.list(store, prefix) for item in chunk]

    yield from sorted(path.removeprefix(prefix) for path in with_retries(place, listed))


def is_prefix(place: str) -> bool:
    """Return whether a bucket has objects below a place.

    Raises:
        StorageError: the bucket does not answer, or refuses.
    """
    import obstore  # noqa: PLC0415

    store, prefix = _prefix_of(place)
    return with_retries(place, lambda: any(obstore.list(store, prefix)))


def _prefix_of(place: str) -> "tuple[S3Store, str]":
    store, key = store_of(place.rstrip("/"))
    return store, f"{key}/" if key else ""
