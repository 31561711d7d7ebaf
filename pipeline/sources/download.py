"""Sources named by http(s) URL: fetched once into a cache, checked by digest, then read like any file."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import CheckError, SourceError
from pipeline.recipe import SourcePart


def is_url(uri: str) -> bool:
    """Tell whether a uri is fetched over http."""
    return uri.startswith(("http://", "https://"))


def cache_folder() -> Path:
    """Where downloads are kept: `IMAGELAKE_CACHE`, or the user's cache folder."""
    import pooch  # noqa: PLC0415 - brings in requests: only for those who download

    return Path(os.environ.get("IMAGELAKE_CACHE") or pooch.os_cache("imagelake"))


def fetch(part: SourcePart) -> Path:
    """Fetch a source, or find it in the cache.

    Pooch writes to a temporary name and renames only what passes the digest, so a file in the cache is whole.

    Args:
        part: a source whose `uri` is a URL. With a `digest`, a cached file that differs is fetched again.

    Returns:
        The file in the cache. It keeps the name it has in the URL, in a folder named for the URL.

    Raises:
        CheckError: what came does not have the recipe's digest.
        SourceError: the server cannot be reached or refuses.
    """
    import pooch  # noqa: PLC0415
    import requests  # noqa: PLC0415 - pooch's own dependency: needed for the names of its errors
    import xxhash  # noqa: PLC0415

    folder = cache_folder() / xxhash.xxh3_64_hexdigest(part.uri.encode())
    name = Path(urlsplit(part.uri).path).name or "download"
    pooch.get_logger().setLevel("WARNING")
    hashes = {name: part.digest}
    keeper = pooch.create(folder, base_url="", registry=hashes, urls={name: part.uri}, retry_if_failed=2)
    try:
        return Path(keeper.fetch(name, downloader=pooch.HTTPDownloader(progressbar=_on_terminal(), timeout=30)))
    except requests.RequestException as error:
        raise SourceError(f"{part.uri}: cannot be fetched ({error}). Check the address and the network.") from error
    except ValueError as error:
        raise CheckError(f"{part.uri}: not the file that digest = {part.digest} names ({error}).") from error


def _on_terminal() -> bool:
    import sys  # noqa: PLC0415

    return sys.stderr.isatty()
