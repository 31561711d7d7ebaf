"""Check at rest what a lake promises: open every file, hash every pixel row again, hold tables against the laws."""

from collections.abc import Callable

import polars as pl
import pyarrow as pa

from pipeline.flow.verify.check import Check
from pipeline.flow.verify.files import files_are_whole
from pipeline.flow.verify.laws import (
    clusters_follow_from_index,
    drops_have_reasons,
    every_file_is_counted,
    ids_are_unique,
    no_cluster_straddles,
    pairs_are_of_images,
    splits_name_images,
)
from pipeline.flow.verify.pixels import pixels_hash
from pipeline.handle import Lake

_CHECKS: tuple[Callable[[Lake], Check], ...] = (
    pixels_hash,
    every_file_is_counted,
    ids_are_unique,
    clusters_follow_from_index,
    pairs_are_of_images,
    splits_name_images,
    no_cluster_straddles,
    drops_have_reasons,
)


def verify(root: str) -> list[Check]:
    """Check the newest release of a lake.

    Reads every table and every pixel, one row group at a time.

    Args:
        root: the lake's folder.

    Returns:
        What was checked, and what is wrong; a check that damaged files keep from running says so as a fault.

    Raises:
        NoReleaseError: the lake has no release.
    """
    lake = Lake(root)
    return [files_are_whole(lake), *(_guarded(check, lake) for check in _CHECKS)]


def _guarded(check: Callable[[Lake], Check], lake: Lake) -> Check:
    try:
        return check(lake)
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError, ValueError) as error:
        name = check.__name__.replace("_", " ")
        return Check(name, 0, [f"cannot be checked: {' '.join(str(error).split())[:300]}"])
