"""Check the source files that a lake with `originals = "reference"` names: they are outside of the lake."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from pipeline.references import reference_path
from pipeline.verify.faults import MAX_IMAGES, Fault
from pipeline.verify.parquet_file import TableFile

_GONE = "restore or mount it; `imagelake build` drops the images of files that are gone for good"


def check_references(file: TableFile, rows: pl.DataFrame, *, read: bool) -> Iterator[Fault]:
    """Look for the referenced files of a shard.

    Args:
        file: the file of originals that names them.
        rows: columns path, location, file_digest and file_size.
        read: hash the files, too; else only their size is compared. Files inside of archives are not read.

    Yields:
        One fault for each kind of difference; of kind `source` if all files are gone together with their folder.
    """
    inside = rows.filter(pl.col("location").str.ends_with(pl.format("#{}", "path")))
    for place in sorted(set(inside.select(pl.col("location").str.strip_suffix(pl.format("#{}", "path"))).to_series())):
        if "://" not in place and not reference_path(place).exists():
            yield file.fault("source", f"{place} with referenced files is not there: {_GONE}", len(inside))
    files = rows.join(inside, on="location", how="anti")
    wanted = zip(files["location"], files["file_size"], files["file_digest"], strict=True)
    found = files.with_columns(fault=pl.Series([_compare(*row, read=read) for row in wanted], dtype=pl.String))
    for (text,), wrong in found.drop_nulls("fault").group_by("fault", maintain_order=True):
        folder = _missing_folder(wrong["location"].to_list()) if len(wrong) == len(files) else None
        if folder:
            yield file.fault("source", f"the folder {folder} of referenced files is not there: {_GONE}", len(wrong))
        else:
            yield file.fault("changed", f"referenced files {text}", len(wrong), wrong["path"][:MAX_IMAGES].to_list())


def merge_faults(faults: Iterable[Fault]) -> list[Fault]:
    """Make one fault of those of a source that have the same text; each was of one shard."""
    merged: dict[tuple[str, str], Fault] = {}
    for fault in faults:
        of_source = {key: fault.partition[key] for key in ("dataset", "split")}
        before = merged.get((fault.text, fault.source))
        rows, images = (before.rows or 0, before.images) if before else (0, ())
        merged[fault.text, fault.source] = fault._replace(
            file="",
            partition=of_source,
            rows=rows + (fault.rows or 0),
            images=[*images, *fault.images][:MAX_IMAGES],
        )
    return list(merged.values())


def _compare(location: str, size: int, digest: bytes, *, read: bool) -> str | None:
    """Return how a file differs from the one that was read; None if it does not."""
    try:
        path = reference_path(location)
        if path.stat().st_size != size:
            return "have another size than when they were read"
        if read:
            with path.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").digest() != digest:
                    return "have changed, with their old size"
    except (FileNotFoundError, NotADirectoryError):
        return "are missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def _missing_folder(locations: Sequence[str]) -> Path | None:
    """Return the highest folder of all of these files that does not exist; None if each of them exists."""
    folder = reference_path(os.path.commonpath([os.path.dirname(name) for name in locations]))  # noqa: PTH120 - as commonpath
    gone = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    return gone[-1] if gone else None
