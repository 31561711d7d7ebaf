"""Ask a bucket: one client for each bucket and set of variables, bounded retries, errors that say what to do."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import ImagelakeError, StorageError

if TYPE_CHECKING:
    from obstore.store import S3Store

Result = TypeVar("Result")

SCHEME = "s3://"
# Of every request: tries after the first, seconds for all of them together, seconds for each.
TRIES, PATIENCE, SECONDS = 8, 60, 60
# Seconds to wait before what the client itself does not dare to repeat, a write, is repeated here.
_PAUSES = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0)
# All that makes one client another, and what the client calls it.
_NAMES = {
    "AWS_ENDPOINT_URL": "aws_endpoint",
    "AWS_ENDPOINT_URL_S3": "aws_endpoint",
    "AWS_DEFAULT_REGION": "aws_region",
    "AWS_REGION": "aws_region",
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
    "AWS_SKIP_SIGNATURE": "aws_skip_signature",
}
# What object_store, the library inside obstore, Polars and deltalake, says of a bucket.
_SILENT = "Generic S3 error|error sending request|after [0-9]+ retries|Error performing|HTTP error|NoSuchBucket"
_NO_BUCKET, _NO_ROLE = "NoSuchBucket", "169\\.254|redential"
_DENIED = "AccessDenied|Forbidden|Unauthorized|SignatureDoesNotMatch|InvalidAccessKeyId|ermission|code: 40[13]"
# What another try does not change.
_FINAL = f"{_NO_BUCKET}|{_NO_ROLE}|{_DENIED}"
_HINTS = {
    _NO_BUCKET: "There is no such bucket: make it first, or check the name",
    _NO_ROLE: "No credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    _DENIED: "The service refuses: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to credentials that may do this",
    "": "It was tried several times. Check AWS_ENDPOINT_URL{endpoint}, AWS_REGION and the network, then run again",
}


def settings() -> dict[str, str]:
    """What the usual variables say, in the words that obstore, Polars and deltalake share."""
    told = {name: os.environ[variable] for variable, name in _NAMES.items() if os.environ.get(variable)}
    endpoint = told.get("aws_endpoint", "")
    told.setdefault("aws_region", "us-east-1")
    if endpoint:
        told["aws_virtual_hosted_style_request"] = "false"
    return told


def store_of(place: str) -> "tuple[S3Store, str]":
    """Find the client for a place in a bucket, and what the place is called there."""
    bucket, _, key = place.removeprefix(SCHEME).partition("/")
    return _client(bucket, tuple(settings().items())), key


def ask(place: str, attempt: Callable[[], Result]) -> Result:
    """Ask a bucket, by any library, and again where it did not answer and the answer may yet come.

    Args:
        place: what is asked for, for messages. Where it is in a folder, it is asked once.
        attempt: may be done twice: where an answer is lost, what was asked for may be done all the same.

    Raises:
        FileNotFoundError: there is no such object.
        StorageError: the bucket does not answer, or refuses.
    """
    if not place.startswith(SCHEME):
        return attempt()
    until = time.monotonic() + PATIENCE
    for pause in (*_PAUSES, None):
        try:
            return attempt()
        except Exception as error:
            if not _is_of_the_bucket(error):
                raise
            if pause is None or time.monotonic() > until or re.search(_FINAL, str(error)):
                raise _said(place, error) from error
        time.sleep(pause)
    raise AssertionError("unreachable: the last try returns or raises")


def silent(place: str, error: Exception) -> StorageError | None:
    """Tell whether what Polars or deltalake raised comes from a bucket that did not answer or refused.

    Args:
        place: what was asked for, for messages.
        error: what was raised.

    Returns:
        The error to raise instead; None where it is about something else.
    """
    return _said(place, error) if place.startswith(SCHEME) and _is_of_the_bucket(error) else None


@contextmanager
def silence_named(place: str) -> Iterator[None]:
    """Turn what Polars or deltalake raise of a bucket that did not answer into an error that says what to do.

    Raises:
        StorageError: the bucket does not answer, or refuses.
    """
    try:
        yield
    except Exception as error:
        if found := silent(place, error):
            raise found from error
        raise


def _is_of_the_bucket(error: Exception) -> bool:
    if isinstance(error, ImagelakeError) or type(error).__name__ in ("AlreadyExistsError", "PreconditionError"):
        return False
    if isinstance(error, FileNotFoundError):
        return "NoSuchBucket" in str(error)
    return re.search(_SILENT, str(error)) is not None


def _said(place: str, error: Exception) -> StorageError:
    said = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).partition("Debug source")[0].split())
    hint = next(hint for words, hint in _HINTS.items() if re.search(words, said))
    endpoint = settings().get("aws_endpoint")
    return StorageError(f"{place}: {hint.format(endpoint=f' (now {endpoint})' if endpoint else '')}. ({said[:300]})")


@lru_cache(maxsize=16)
def _client(bucket: str, told: tuple[tuple[str, str], ...]) -> "S3Store":
    from obstore.store import S3Store  # noqa: PLC0415

    config: Any = dict(told)
    return S3Store(
        bucket,
        config=config,
        client_options={
            "timeout": timedelta(seconds=SECONDS),
            "allow_http": config.get("aws_endpoint", "").startswith("http://"),
        },
        retry_config={
            "max_retries": TRIES,
            "retry_timeout": timedelta(seconds=PATIENCE),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
        },
    )
