"""Files of a folder and objects of a bucket, by one set of functions."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from pipeline.storage.client import PATIENCE, SCHEME, SECONDS, TRIES, ask, settings, store_of


class Found(NamedTuple):
    """An object of a bucket.

    Attributes:
        size: bytes.
        tag: changes whenever its content is written.
        time: of its last writing, by the bucket's clock.
    """

    size: int
    tag: str
    time: datetime


def is_bucket(place: str) -> bool:
    """Tell whether a place is in a bucket."""
    return place.startswith(SCHEME)


def normal(place: str | Path) -> str:
    """Spell a place in one way: in a bucket without a slash at its end."""
    text = str(place)
    return f"{SCHEME}{text.removeprefix(SCHEME).strip('/')}" if is_bucket(text) else text


def resolved(place: str) -> str:
    """Spell a place so that two spellings of one are equal: a folder absolute, without links."""
    return normal(place) if is_bucket(place) else str(Path(place).resolve())


def last_name(place: str) -> str:
    """Name a place by its last part."""
    return resolved(place).rpartition("/")[2]


def options(place: str) -> dict[str, str] | None:
    """What deltalake must know to read and write at a place; None for a folder."""
    if not is_bucket(place):
        return None
    return {
        **_told(),
        "aws_conditional_put": "etag",
        "max_retries": str(TRIES),
        "retry_timeout": f"{PATIENCE}s",
        "backoff_config.init_backoff": "100ms",
        "backoff_config.max_backoff": "5s",
    }


def scan_options(place: str) -> dict[str, Any] | None:
    """What Polars must know to read at a place; None for a folder."""
    if not is_bucket(place):
        return None
    return {**_told(), "max_retries": TRIES, "retry_timeout_ms": PATIENCE * 1000}


def _told() -> dict[str, str]:
    told = settings()
    http = told.get("aws_endpoint", "").startswith("http://")
    return {**told, "allow_http": str(http).lower(), "timeout": f"{SECONDS}s"}


def exists(name: str) -> bool:
    """Tell whether there is a file or object of just this name."""
    return look(name) is not None if is_bucket(name) else Path(name).exists()


def look(name: str) -> Found | None:
    """Look at an object; None where there is none."""
    import obstore  # noqa: PLC0415 - only those who use buckets pay for it

    store, key = store_of(name)
    try:
        meta = ask(name, lambda: obstore.head(store, key))
    except FileNotFoundError:
        return None
    return Found(meta["size"], meta["e_tag"] or "", meta["last_modified"])


def read(name: str) -> bytes:
    """Read a file or object.

    Raises:
        FileNotFoundError: there is none.
        StorageError: the bucket does not answer, or refuses.
    """
    if not is_bucket(name):
        return Path(name).read_bytes()
    import obstore  # noqa: PLC0415

    store, key = store_of(name)
    return ask(name, lambda: bytes(obstore.get(store, key).bytes()))


def read_start(name: str, length: int) -> bytes:
    """Read the first bytes of a file or object; see `read`."""
    if is_bucket(name):
        return read_range(name, 0, length)
    with Path(name).open("rb") as stream:
        return stream.read(length)


def read_range(name: str, start: int, length: int) -> bytes:
    """Read some bytes of an object; fewer where it ends before.

    Raises:
        FileNotFoundError: there is no such object.
        StorageError: the bucket does not answer, or refuses.
    """
    import obstore  # noqa: PLC0415

    store, key = store_of(name)
    return ask(name, lambda: bytes(obstore.get_range(store, key, start=start, length=length)))


def write(name: str, content: bytes | IO[bytes]) -> None:
    """Write an object, whole or not at all, over what is there.

    Args:
        name: a place in a bucket.
        content: bytes, or a file; a large one goes up in pieces.

    Raises:
        StorageError: the bucket does not answer, or refuses.
    """
    import obstore  # noqa: PLC0415

    store, key = store_of(name)

    def put() -> None:
        if not isinstance(content, bytes):
            content.seek(0)
        obstore.put(store, key, content)

    ask(name, put)


def write_if(name: str, content: bytes, tag: str | None) -> Found | None:
    """Write an object only if it is as it was: the one way in which of two writers only one can win.

    Args:
        name: a place in a bucket.
        content: bytes that no other writer would write.
        tag: of the object as it was; None where there was none.

    Returns:
        The object as it is now; None where somebody else was first, and then nothing was written.

    Raises:
        StorageError: the bucket does not answer, or refuses.
    """
    import obstore  # noqa: PLC0415
    from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415

    store, key = store_of(name)
    # Without quotes: some services compare with the bare digest, and others take either.
    mode: Any = "create" if tag is None else {"e_tag": tag.strip('"')}

    def put() -> bool:
        try:
            obstore.put(store, key, content, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            # Where the answer to a try was lost, the next one hears that somebody was first: ourselves.
            with suppress(FileNotFoundError):
                return read(name) == content
            return False
        return True

    return look(name) if ask(name, put) else None


def delete(names: Iterable[str]) -> None:
    """Delete files or objects; that one is gone already does not matter.

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
    ask(name, lambda: obstore.delete(store, key))


def below(place: str) -> Iterator[str]:
    """Name every file or object below a place, by what its name has behind that, ordered.

    Raises:
        StorageError: the bucket does not answer, or refuses.
    """
    if not is_bucket(place):
        found = (file.relative_to(place).as_posix() for file in Path(place).rglob("*") if file.is_file())
        yield from sorted(found)
        return
    import obstore  # noqa: PLC0415

    store, key = store_of(place)
    prefix = f"{key}/" if key else ""
    listed = ask(place, lambda: [item["path"] for chunk in obstore.list(store, prefix) for item in chunk])
    yield from sorted(path.removeprefix(prefix) for path in listed)
