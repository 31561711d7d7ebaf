"""Sources named by address: fetched into a cache, checked by digest, then read like any file.

An http(s) address is fetched once and then kept: give it a `digest`, or another address, when what it names changes.
What lies in a bucket is fetched again when it has changed (see `buckets`).
"""

import os
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import xxhash

from pipeline.errors import CheckError, SourceError
from pipeline.recipe import SourcePart
from pipeline.sources.remote.buckets import fetch_object, is_bucket, is_current

if TYPE_CHECKING:
    import requests

# Seconds between tries. What the server refuses outright, or a wrong digest, is not asked for again.
_WAITS = (1, 4)
# How a page begins. No source does: it is what a server shows instead of a file, to log in or to say what is wrong.
_PAGE = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script")


def is_url(uri: str) -> bool:
    """Tell whether a uri is an address that is fetched."""
    return uri.startswith(("http://", "https://")) or is_bucket(uri)


def cache_folder() -> Path:
    """Where downloads are kept: `IMAGELAKE_CACHE`, or the user's cache folder."""
    import pooch  # noqa: PLC0415 - brings in requests: only for those who download

    return Path(os.environ.get("IMAGELAKE_CACHE") or pooch.os_cache("imagelake"))


def is_cached(part: SourcePart) -> bool:
    """Tell whether the cache holds what an address names: for an object in a bucket, as it is now.

    Raises:
        SourceError: the bucket cannot be asked.
    """
    file = _place(part)
    return is_current(part, file) if is_bucket(part.uri) else file.exists()


def _place(part: SourcePart) -> Path:
    # A key may hold what means something else in an address.
    path = part.uri if is_bucket(part.uri) else unquote(urlsplit(part.uri).path)
    name = Path(path).name.lstrip(".") or "download"
    return cache_folder() / xxhash.xxh3_64_hexdigest(part.uri.encode()) / name


def fetch(part: SourcePart) -> Path:
    """Fetch a source, or find it in the cache.

    A file in the cache is whole: it is written under another name, and renamed only when it passes the digest. What is
    a web page is not kept.

    Args:
        part: a source whose `uri` is an address. With a `digest`, a cached file that differs is fetched again.

    Returns:
        The file in the cache. It keeps the name it has in the address, in a folder named for the address.

    Raises:
        CheckError: what came does not have the recipe's digest, or is a web page.
        SourceError: the server cannot be reached or refuses, or the cache cannot be written.
    """
    file = _place(part)
    get = fetch_object if is_bucket(part.uri) else _fetch_page
    try:
        get(part, file)
    except OSError as error:
        raise SourceError(f"{part.uri}: cannot be kept in {file.parent} ({error}). Set IMAGELAKE_CACHE.") from error
    return file


def _fetch_page(part: SourcePart, file: Path) -> None:
    import pooch  # noqa: PLC0415
    import requests  # noqa: PLC0415 - pooch's own dependency: needed for the names of its errors

    pooch.get_logger().setLevel("WARNING")
    keeper = pooch.create(file.parent, base_url="", registry={file.name: part.digest}, urls={file.name: part.uri})
    # Unpacked on the way, an archive would not have the digest that its publisher gives.
    plain = {"Accept-Encoding": "identity"}
    loader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**16, timeout=30, headers=plain)

    def load(address: str, target: str, keeper: Any) -> None:  # noqa: ANN401 - pooch has no types
        loader(address, target, keeper)
        _refuse_page(part, Path(target))

    try:
        _patiently(lambda: keeper.fetch(file.name, downloader=load))
    except requests.RequestException as error:
        raise SourceError(f"{part.uri}: cannot be fetched ({error}). Check the address and the network.") from error
    except CheckError:
        raise
    except ValueError as error:
        raise CheckError(f"{part.uri}: not the file that digest = {part.digest} names ({error}).") from error


def _refuse_page(part: SourcePart, came: Path) -> None:
    with came.open("rb") as stream:
        head = stream.read(512)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGE):
        raise CheckError(
            f"{part.uri}: the server sent a web page instead of a file. Open the address in a browser: it may want a "
            "login, or name another address."
        )


def _patiently(attempt: Callable[[], str]) -> str:
    import requests  # noqa: PLC0415

    for wait in _WAITS:
        try:
            return _once(attempt)
        except requests.RequestException as error:
            # A ValueError too: it leads to where nothing can be fetched from, such as file:///.
            if isinstance(error, ValueError) or not _may_pass(error.response):
                raise
        time.sleep(wait)
    return _once(attempt)


def _once(attempt: Callable[[], str]) -> str:
    import requests  # noqa: PLC0415

    try:
        return attempt()
    except requests.RequestException as error:
        # Pooch leaves the connection of a refused request open.
        if error.response is not None:
            error.response.close()
        raise


def _may_pass(response: "requests.Response | None") -> bool:
    if response is None:
        return True
    return (
        response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status_code == HTTPStatus.TOO_MANY_REQUESTS
    )
