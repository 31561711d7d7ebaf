"""Read and write files on disk and objects in buckets.

A place is a string: a path, or `s3://bucket/prefix`. Names below a place are separated by slashes.

Buckets use the AWS environment variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or
AWS_PROFILE and its files, or else the machine's role; AWS_REGION or AWS_DEFAULT_REGION; AWS_ENDPOINT_URL_S3 or
AWS_ENDPOINT_URL for services other than Amazon's. Requests are not signed with AWS_SKIP_SIGNATURE=true, or if there are
no credentials.

Every request is repeated a bounded number of times with growing delays. Polars and deltalake use the same settings.
"""

from pipeline.storage.atomic import disk_full_errors
from pipeline.storage.client import SCHEME, storage_error, storage_errors, with_retries
from pipeline.storage.digests import check_files, damage_errors
from pipeline.storage.objects import (
    ObjectInfo,
    check_regular,
    delete,
    delta_options,
    exists,
    head,
    is_bucket,
    is_prefix,
    last_name,
    list_files,
    normalized,
    polars_options,
    read,
    read_range,
    read_start,
    resolved,
    stream,
    write,
    write_if_unchanged,
)
from pipeline.storage.parquet import check_expansion, check_readable, open_parquet, read_footers, scan_parquet

__all__ = [
    "SCHEME",
    "ObjectInfo",
    "check_expansion",
    "check_files",
    "check_readable",
    "check_regular",
    "damage_errors",
    "delete",
    "delta_options",
    "disk_full_errors",
    "exists",
    "head",
    "is_bucket",
    "is_prefix",
    "last_name",
    "list_files",
    "normalized",
    "open_parquet",
    "polars_options",
    "read",
    "read_footers",
    "read_range",
    "read_start",
    "resolved",
    "scan_parquet",
    "storage_error",
    "storage_errors",
    "stream",
    "with_retries",
    "write",
    "write_if_unchanged",
]
