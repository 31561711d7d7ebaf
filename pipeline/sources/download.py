"""Sources named by http(s) URL: fetched once into a cache, checked by digest, then read like any file."""

import os
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import xxhash

from pipeline.errors import CheckError, SourceError
from pipeline.recipe import SourcePart

if TYPE_CHECKING:
    import requests

# Seconds between tries. What the server refuses outright, or a wrong digest, is not asked for again.
_WAITS = (1, 4)


def is_url(uri: str) -> bool:
    """Tell whether a uri is fetched over http."""
    return uri.startswith(("http://", "https://"))


def cache_folder() -> Path:
    """Where downloads are kept: `IMAGELAKE_CACHE`, or the user's cache folder."""
    import pooch  # noqa: PLC0415 - brings in requests: only for those who download

    return Path(os.environ.get("IMAGELAKE_CACHE") or pooch.os_cache("imagelake"))


def is_fetched(part: SourcePart) -> bool:
    """Tell whether a source is at hand: a file, or an address that is in the cache."""
    if not is_url(part.uri):
        return True
    folder, name = _place(part)
    return (folder / name).exists()


def _place(part: SourcePart) -> tuple[Path, str]:
    folder = cache_folder() / xxhash.xxh3_64_hexdigest(part.uri.encode())
    return folder, Path(unquote(urlsplit(part.uri).path)).name.lstrip(".") or "download"


def fetch(part: SourcePart) -> Path:
    """Fetch a source, or find it in the cache.

    Pooch writes to a temporary name and renames only what passes the digest, so a file in the cache is whole.

    Args:
        part: a source whose `uri` is a URL. With a `digest`, a cached file that differs is fetched again.

    Returns:
        The file in the cache. It keeps the name it has in the URL, in a folder named for the URL.

    Raises:
        CheckError: what came does not have the recipe's digest.
        SourceError: the server cannot be reached or refuses, or the cache cannot be written.
    """
    import pooch  # noqa: PLC0415
    import requests  # noqa: PLC0415 - pooch's own dependency: needed for the names of its errors

    folder, name = _place(part)
    pooch.get_logger().setLevel("WARNING")
    keeper = pooch.create(folder, base_url="", registry={name: part.digest}, urls={name: part.uri})
    # Unpacked on the way, an archive would not have the digest that its publisher gives.
    plain = {"Accept-Encoding": "identity"}
    loader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**16, timeout=30, headers=plain)
    try:
        return Path(_patiently(lambda: keeper.fetch(name, downloader=loader)))
    except requests.RequestException as error:
        raise SourceError(f"{part.uri}: cannot be fetched ({error}). Check the address and the network.") from error
    except ValueError as error:
        raise CheckError(f"{part.uri}: not the file that digest = {part.digest} names ({error}).") from error
    except OSError as error:
        raise SourceError(f"{part.uri}: cannot be kept in {folder} ({error}). Set IMAGELAKE_CACHE.") from error


def _patiently(attempt: Callable[[], str]) -> str:
    import requests  # noqa: PLC0415

    for wait in _WAITS:
        try:
            return _once(attempt)
        except requests.RequestException as error:
            if not _may_pass(error.response):
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
