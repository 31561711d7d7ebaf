"""Clients of buckets: one for each bucket and set of credentials, with bounded retries and clear errors."""

import configparser
import http.client
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pipeline.errors import ImagelakeError, StorageError

if TYPE_CHECKING:
    from obstore.store import S3Store

Result = TypeVar("Result")

SCHEME = "s3://"
# Of every request: tries after the first, seconds for all of them together, seconds for each.
RETRIES, RETRY_SECONDS, REQUEST_SECONDS = 8, 60, 60
_NO_LIMIT = timedelta(days=30)
# Seconds to wait before each repetition of a request that the client itself does not repeat: a write, a broken list.
_RETRY_DELAYS = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0)
# Environment variables, and the names of the same options in object_store. Later ones override earlier ones.
_OPTION_NAMES = {
    "AWS_ENDPOINT_URL": "aws_endpoint",
    "AWS_ENDPOINT_URL_S3": "aws_endpoint",
    "AWS_DEFAULT_REGION": "aws_region",
    "AWS_REGION": "aws_region",
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
    "AWS_SKIP_SIGNATURE": "aws_skip_signature",
}
_PROFILE_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
# Variables that name a role of a container or a service account.
_ROLE_VARIABLES = (
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
_METADATA_SERVICE = "169.254.169.254"
# Variables that object_store reads as true or false, and what it accepts.
_BOOLEANS = (
    "AWS_ALLOW_HTTP",
    "AWS_ALLOW_INVALID_CERTIFICATES",
    "AWS_DISABLE_TAGGING",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_IMDSV1_FALLBACK",
    "AWS_REQUEST_PAYER",
    "AWS_S3_EXPRESS",
    "AWS_SKIP_SIGNATURE",
    "AWS_UNSIGNED_PAYLOAD",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
)
_BOOLEAN = re.compile("1|true|on|yes|y|0|false|off|no|n", re.IGNORECASE)
# Values of settings. Other characters let the libraries panic.
_BUCKET, _REGION, _PRINTABLE = re.compile(r"[A-Za-z0-9._-]+"), re.compile(r"[A-Za-z0-9-]+"), re.compile(r"[!-~]+")
# What object_store, the library inside obstore, Polars and deltalake, writes into errors that come from a bucket.
_BUCKET_ERROR = (
    "Config error|Generic S3 error|error sending request|after [0-9]+ retries|Error performing|HTTP error|NoSuchBucket"
)
_BAD_SETTING, _NO_BUCKET, _NO_CREDENTIALS = "Config error", "NoSuchBucket", "169\\.254|redential"
_DENIED = (
    "AccessDenied|Forbidden|Unauthorized|SignatureDoesNotMatch|InvalidAccessKeyId|ermission|code: 40[13]"
    "|code: 400(?!.*RequestTimeout)"
)
# Errors that a repetition does not change.
_PERMANENT = f"{_BAD_SETTING}|{_NO_BUCKET}|{_NO_CREDENTIALS}|{_DENIED}"
_HINTS = {
    _NO_BUCKET: "There is no such bucket. Check the name, or create the bucket first",
    _NO_CREDENTIALS: "No credentials were found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    _DENIED: "Access is denied. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, to credentials that "
    "may do this, or set AWS_SKIP_SIGNATURE=true if the bucket is public",
    "": "The service did not answer after several tries. Check AWS_ENDPOINT_URL{endpoint}, AWS_REGION and the network, "
    "then run the command again",
}


def settings() -> dict[str, str]:
    """Return the options of a client, by the names that obstore, Polars and deltalake share.

    They come from the AWS environment variables, else from the AWS profile. Requests are not signed if there are no
    credentials and the machine has no role.

    Raises:
        StorageError: a setting is not valid. The message names it, not its value, which may be secret.
    """
    for variable in _BOOLEANS:
        if (value := os.environ.get(variable)) and not _BOOLEAN.fullmatch(value):
            raise _wrong_setting(variable, "is neither true nor false. Set it to true or false, or unset it")
    options = {name: os.environ[variable] for variable, name in _OPTION_NAMES.items() if os.environ.get(variable)}
    if "aws_access_key_id" not in options and "aws_skip_signature" not in options:
        options = {**_profile(), **options}
        if "aws_access_key_id" not in options and not _has_role():
            options["aws_skip_signature"] = "true"
    options.setdefault("aws_region", "us-east-1")
    _check_settings(options)
    if "aws_endpoint" in options:
        options["aws_virtual_hosted_style_request"] = "false"
    return options


def _check_settings(options: Mapping[str, str]) -> None:
    keys = {name for name in ("aws_access_key_id", "aws_secret_access_key") if name in options}
    for name, value in options.items():
        if name == "aws_endpoint":
            fault = _endpoint_fault(value)
            if fault:
                raise _wrong_setting(
                    _origin(name),
                    f"is not the address of a service: {fault}. Set it to https://HOST or http://HOST:PORT",
                )
        elif name == "aws_region" and not _REGION.fullmatch(value):
            raise _wrong_setting(_origin(name), "is not a region. Set it to letters, digits and -, such as us-east-1")
        elif not _PRINTABLE.fullmatch(value):
            raise _wrong_setting(
                _origin(name), "has blanks, line breaks or other characters that it cannot have. Correct it"
            )
    if len(keys) == 1:
        missing = {"aws_access_key_id", "aws_secret_access_key"} - keys
        raise _wrong_setting(_origin(*keys), f"is set, but {missing.pop().upper()} is not. Set both, or neither")


def _endpoint_fault(address: str) -> str:
    """Return why an address cannot be the endpoint of a service; empty if it can."""
    if not _PRINTABLE.fullmatch(address):
        return "it has blanks, or characters that an address cannot have"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return "its host or port is not valid"
    if parts.scheme not in ("http", "https"):
        return "it does not begin with http:// or https://"
    if not parts.hostname or port == 0 or re.search(r"[^A-Za-z0-9._:%-]", parts.hostname):
        return "its host or port is not valid"
    if "@" in parts.netloc:
        return "it has a user name or password, which belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return "it has a query" if parts.query or parts.fragment else ""


def _origin(name: str) -> str:
    """Return where an option comes from."""
    names = [variable for variable, option in _OPTION_NAMES.items() if option == name and os.environ.get(variable)]
    return names[-1] if names else f"{name} in the AWS profile '{os.environ.get('AWS_PROFILE') or 'default'}'"


def _wrong_setting(name: str, what: str) -> StorageError:
    return StorageError(f"{name} {what}, then run the command again.")


def _profile() -> dict[str, str]:
    """Read the access keys and the region of an AWS profile: `AWS_PROFILE`, or the default one."""
    name = os.environ.get("AWS_PROFILE") or "default"
    credentials, config = configparser.RawConfigParser(), configparser.RawConfigParser()
    try:
        credentials.read(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials")
        config.read(os.environ.get("AWS_CONFIG_FILE") or Path.home() / ".aws" / "config")
    except (OSError, RuntimeError, ValueError, configparser.Error) as error:
        raise StorageError(f"The AWS profile '{name}' cannot be read ({error}). Correct the file.") from error
    section = name if name == "default" else f"profile {name}"
    if os.environ.get("AWS_PROFILE") and not (credentials.has_section(name) or config.has_section(section)):
        raise StorageError(f"There is no AWS profile '{name}' (AWS_PROFILE) in the AWS credentials and config files.")
    found = {key: config.get(section, key, fallback="") for key in (*_PROFILE_KEYS, "region")}
    found |= {key: value for key in _PROFILE_KEYS if (value := credentials.get(name, key, fallback=""))}
    found["aws_region"] = found.pop("region")
    return {key: value for key, value in found.items() if value}


def _has_role() -> bool:
    if any(map(os.environ.get, _ROLE_VARIABLES)):
        return True
    return os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true" and _has_instance_role()


@lru_cache(1)
def _has_instance_role() -> bool:
    """Return whether the machine is one of Amazon's that can have a role: its metadata service answers in a second."""
    connection = http.client.HTTPConnection(_METADATA_SERVICE, timeout=1)
    try:
        connection.request("PUT", "/latest/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def store_of(place: str, *, streaming: bool = False) -> "tuple[S3Store, str]":
    """Return the client for a place in a bucket, and the key of the place.

    Args:
        place: `s3://bucket/key`.
        streaming: whether a request may take any time, as long as data arrives.
    """
    check_bucket(place)
    bucket, _, key = place.removeprefix(SCHEME).partition("/")
    return _client(bucket, tuple(settings().items()), streaming=streaming), key


def check_bucket(place: str) -> None:
    """Check the name of the bucket in a place.

    Raises:
        StorageError: it has a user name or password, or characters that no bucket has.
    """
    bucket = place.removeprefix(SCHEME).partition("/")[0]
    if "@" in bucket:
        raise StorageError(
            f"{place}: an address of a bucket has no user name and password. Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY instead."
        )
    if not _BUCKET.fullmatch(bucket):
        raise StorageError(
            f"{place}: '{bucket}' is not the name of a bucket, which has letters, digits and . _ - only. Write "
            "s3://bucket/prefix."
        )


def with_retries(place: str, attempt: Callable[[], Result]) -> Result:
    """Call a function that uses a bucket, by any library, and repeat it after errors that may pass.

    Args:
        place: the place that the function uses, for messages. For a place on disk, the function is called once.
        attempt: the function. A call whose reply was lost may have had its effect, so two calls must do no harm.

    Raises:
        FileNotFoundError: there is no such object.
        StorageError: the bucket does not answer, or refuses.
    """
    if not place.startswith(SCHEME):
        return attempt()
    deadline = time.monotonic() + RETRY_SECONDS
    for delay in (*_RETRY_DELAYS, None):
        try:
            return attempt()
        except Exception as error:
            if not _is_bucket_error(error):
                raise
            if delay is None or time.monotonic() > deadline or re.search(_PERMANENT, str(error)):
                raise _with_hint(place, error) from error
        time.sleep(delay)
    raise AssertionError("unreachable: the last try returns or raises")


def storage_error(place: str, error: Exception) -> StorageError | None:
    """Make a StorageError of an error that Polars or deltalake raised because a bucket did not answer or refused.

    Args:
        place: the place that was used, for messages.
        error: the error that was raised.

    Returns:
        The error to raise instead; None if the error has another cause.
    """
    return _with_hint(place, error) if place.startswith(SCHEME) and _is_bucket_error(error) else None


@contextmanager
def storage_errors(place: str) -> Iterator[None]:
    """Raise what Polars or deltalake raise for a bucket that did not answer or refused as StorageError.

    Raises:
        StorageError: the bucket does not answer, or refuses.
    """
    try:
        yield
    except Exception as error:
        if found := storage_error(place, error):
            raise found from error
        raise


def _is_bucket_error(error: Exception) -> bool:
    if isinstance(error, ImagelakeError) or type(error).__name__ in ("AlreadyExistsError", "PreconditionError"):
        return False
    if isinstance(error, FileNotFoundError):
        return "NoSuchBucket" in str(error)
    return re.search(_BUCKET_ERROR, str(error)) is not None


def _with_hint(place: str, error: Exception) -> StorageError:
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).partition("Debug source")[0].split())
    if re.search(_BAD_SETTING, text):
        named = [
            name for name, value in os.environ.items() if name.startswith("AWS_") and value and f'"{value}"' in text
        ]
        return _wrong_setting(" or ".join(named) or "One of the variables AWS_*", "is not valid. Correct or unset it")
    hint = next(hint for pattern, hint in _HINTS.items() if re.search(pattern, text))
    endpoint = settings().get("aws_endpoint")
    return StorageError(f"{place}: {hint.format(endpoint=f' (now {endpoint})' if endpoint else '')}. ({text[:300]})")


@lru_cache(maxsize=16)
def _client(bucket: str, options: tuple[tuple[str, str], ...], *, streaming: bool) -> "S3Store":
    from obstore.store import S3Store  # noqa: PLC0415

    config: Any = dict(options)
    return S3Store(
        bucket,
        config=config,
        client_options={
            "timeout": _NO_LIMIT if streaming else timedelta(seconds=REQUEST_SECONDS),
            "read_timeout": timedelta(seconds=REQUEST_SECONDS),
            "allow_http": config.get("aws_endpoint", "").startswith("http://"),
        },
        retry_config={
            "max_retries": RETRIES,
            "retry_timeout": _NO_LIMIT if streaming else timedelta(seconds=RETRY_SECONDS),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
        },
    )
