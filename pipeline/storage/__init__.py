"""Where bytes lie: a folder, or `s3://bucket/prefix`. A place is a string; what is below it is named with slashes.

Who asks a bucket, and where, is told by the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
AWS_SESSION_TOKEN (without them, the machine's role); AWS_REGION or AWS_DEFAULT_REGION; AWS_ENDPOINT_URL_S3 or
AWS_ENDPOINT_URL for a service that is not Amazon's; AWS_SKIP_SIGNATURE=true to ask as anybody may.

Every request is repeated with growing pauses, and not for ever. Polars and deltalake are told the same (`options`).
"""

from pipeline.storage.atomic import full_disk_named
from pipeline.storage.client import ask, silence_named, silent
from pipeline.storage.objects import (
    Found,
    below,
    delete,
    exists,
    is_bucket,
    last_name,
    look,
    normal,
    options,
    read,
    read_range,
    read_start,
    resolved,
    write,
    write_if,
)
from pipeline.storage.parquet import open_parquet, read_footers, scan_parquet

__all__ = [
    "Found",
    "ask",
    "below",
    "delete",
    "exists",
    "full_disk_named",
    "is_bucket",
    "last_name",
    "look",
    "normal",
    "open_parquet",
    "options",
    "read",
    "read_footers",
    "read_range",
    "read_start",
    "resolved",
    "scan_parquet",
    "silence_named",
    "silent",
    "write",
    "write_if",
]
