"""Export a split to files that other tools read, and pin its release: vacuum keeps releases that have an export."""

import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from pipeline import storage
from pipeline.arrays.exports import FORMS, WITH_ORIGINALS, ExportContext, Form, Selection, digest_rows, locate_role
from pipeline.arrays.exports.imagefolder import write as write_imagefolder
from pipeline.arrays.exports.notebook import write as write_notebook
from pipeline.engines import Engine
from pipeline.engines.local import LocalEngine
from pipeline.errors import DamagedLakeError, DiskFullError, ImagelakeError, LakeError, one_line
from pipeline.hashing import digest_of
from pipeline.labels import CORRECTED, label_in_split
from pipeline.lake.releases import register_export, release_versions
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import transaction
from pipeline.lake.writers.heartbeats import registered
from pipeline.lake_handle import Lake
from pipeline.predictions import PredictionsForm
from pipeline.progress import Progress
from pipeline.recipe.parts import ROLES
from pipeline.storage.atomic import atomic_folder, check_free
from schemas.images import PIXELS

# A form that needs a model of the lake besides the rows.
PREDICTIONS = "predictions"
FORM_NAMES = (*FORMS, PREDICTIONS)
# Modules that workers import when they start.
_PRELOAD = ("pipeline.arrays.exports",)


class Exported(NamedTuple):
    """The result of an export.

    Attributes:
        target: the folder.
        release: the release.
        images: number of images in all roles.
        roles: by role, number of images.
        left_out: roles without images: the split lacks them, or sanitizing dropped all their rows.
        files: number of files in the folder.
        size: total size of the files in bytes.
        linked: number of files that are hard links to their sources.
        seconds: duration, without the time to pin the release.
        unpinned: why the release is not pinned; empty if it is.
    """

    target: Path
    release: int
    images: int
    roles: dict[str, int]
    left_out: list[str]
    files: int
    size: int
    linked: int
    seconds: float
    unpinned: str


def export(  # noqa: PLR0913 - the options of the command
    lake: str,
    split: str,
    target: Path,
    form: str,
    *,
    roles: Collection[str] = (),
    sanitized: bool = True,
    release: int | None = None,
    engine: Engine | None = None,
    pickle: bool = False,
    link: bool = False,
    run: str | None = None,
    train_size: int | None = None,
    kaggle: bool = False,
    pinned: bool = True,
    check: bool = True,
    on_wait: Callable[[], None] | None = None,
) -> Exported:
    """Write the roles of a split to a folder, in the order of their ranks.

    The folder appears when it is complete: a failed or killed export never leaves a partial one. Pixels are streamed.
    Exports of the same release are equal, byte for byte.

    Args:
        lake: the lake's place.
        split: name of the split.
        target: the folder; new or empty.
        form: one of `FORM_NAMES`.
        roles: roles to export; empty for all roles with images.
        sanitized: export only the rows that sanitizing kept.
        release: number of the release; None for the newest.
        engine: where images are encoded; the local engine on every core if None.
        pickle: write a pickle as well; for form `notebook` only.
        link: make hard links to source files that are on the same disk and have the same bytes; for form `imagefolder`
            only.
        run: for form `predictions` only: MODEL@SPLIT, as in `Lake.model`. This form writes the test role if no role is
            named and the split has one, and all of its rows: each needs a prediction.
        train_size: for form `predictions` only, as in `Lake.model`.
        kaggle: for form `predictions` only: write ImageId and Label.
        pinned: add the export to the lake's table `exports`, so that vacuum keeps its release.
        check: check the files of the lake for damage before they are exported; see `Lake.check`.
        on_wait: called once if pinning has to wait for another writer of the lake. The files are complete then.

    Raises:
        LakeError: there is no such form, split or role; the form needs images of one shape; or the target is not empty,
            lies in the lake or one of its sources, or cannot be written to.
        DamagedLakeError: a file of the lake is missing or damaged; no file was exported.
        NoReleaseError: there is no lake or no such release, or vacuum deleted it meanwhile.
        DiskFullError: no space is left; all files of the export were deleted.
        StorageError: a bucket does not answer.
    """
    started = time.monotonic()
    if ":/" in str(target):
        raise LakeError(f"{target}: is an address. An export is written to a folder: copy it from there.")
    folder, opened = target.resolve(), Lake(lake, release)
    if form == PREDICTIONS:
        write: Form = PredictionsForm(opened.model(run, train_size), kaggle).write
        roles, sanitized = roles or _role_to_predict(opened, split), False
    else:
        write = _find_form(form, pickle=pickle, link=link)
    if not storage.is_bucket(opened.root) and folder.is_relative_to(Path(lake).resolve()):
        raise LakeError(f"{target}: lies in the lake, whose files vacuum deletes. Name a folder outside of {lake}.")
    _check_outside_of_sources(opened, target)
    check_free(folder)
    try:
        if check:
            opened.check("splits", split=split)
            opened.check("images")
            for table in _tables_of_files(form, link=link):
                opened.check(table)
        selection = _select(opened, split, roles, form, link=link, sanitized=sanitized, check=check)
        description = _describe(opened, selection, form, sanitized=sanitized)
        with _disk_full_errors(target), atomic_folder(folder) as draft, Progress() as progress:
            progress.stage(f"export {form}", description["images"])
            workers = engine or LocalEngine(preload=_PRELOAD)
            write(draft, selection, ExportContext(workers.map, progress.advance))
            text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"
            (draft / "export.json").write_text(text, encoding="utf-8")
    except (DamagedLakeError, OSError, pl.exceptions.PolarsError, pa.ArrowException):
        # If vacuum deleted the release meanwhile, raise NoReleaseError instead.
        release_versions(Snapshot(opened.root), opened.release)
        raise
    counts = {role.name: len(role) for role in selection.roles}
    files, size, linked = _count_files(folder)
    seconds = time.monotonic() - started
    unpinned = _pin_release(opened, description, folder, on_wait) if pinned else "pinning was turned off"
    missing = [role for role in roles or ROLES if role not in counts]
    return Exported(
        folder, opened.release, description["images"], counts, missing, files, size, linked, seconds, unpinned
    )


def _role_to_predict(lake: Lake, split: str) -> Collection[str]:
    """Return the test role of a split, if it has one."""
    in_test = lake.scan("splits").filter(pl.col("split_name") == split, pl.col("role") == "test").head(1).collect()
    return () if in_test.is_empty() else ("test",)


def export_engine(workers: int | None) -> LocalEngine:
    """Make a local engine whose workers import what encoding needs when they start."""
    return LocalEngine(workers, preload=_PRELOAD)


def _find_form(name: str, *, pickle: bool, link: bool) -> Form:
    if name not in FORMS:
        raise LakeError(f"no form '{name}'. Forms: {', '.join(FORM_NAMES)}.")
    if pickle and name != "notebook":
        raise LakeError(f"a pickle is written with form notebook only, not with {name}.")
    if link and name != "imagefolder":
        raise LakeError(f"hard links are made with form imagefolder only, not with {name}.")
    if link:
        return partial(write_imagefolder, link=True)
    return partial(write_notebook, pickle=True) if pickle else FORMS[name]


def _tables_of_files(form: str, *, link: bool) -> list[str]:
    """List the tables that a form of encoded images needs besides images and splits."""
    return ["originals", "attributes", *(["shards"] if link else [])] if form in WITH_ORIGINALS else []


def _select(  # noqa: PLR0913 - what to export
    lake: Lake, split: str, roles: Collection[str], form: str, *, link: bool, sanitized: bool, check: bool
) -> Selection:
    """Find the rows of every role, in the order of ranks, and the places of their pixels and original files."""
    drawn = lake.scan("splits").filter(pl.col("split_name") == split)
    if drawn.head(1).collect().is_empty():
        names = lake.scan("splits").select("split_name").unique().collect().to_series().sort().to_list()
        raise LakeError(f"{lake.root} has no split '{split}'. Splits: {', '.join(names) or 'none'}.")
    existing = set(drawn.select("role").unique().collect().to_series())
    if absent := [role for role in roles if role not in existing]:
        known = ", ".join(role for role in ROLES if role in existing)
        raise LakeError(f"split '{split}' has no role '{absent[0]}'. Roles: {known}.")
    columns = (
        *("image_id", "label", "path", "dataset", "split", "height", "width", "channels"),
        *("content_hash", "file_digest", "file_size", "shard"),
    )
    rows = (
        drawn.filter(pl.col("role").is_in(list(roles or ROLES)))
        .select(
            "role", "rank", "image_id", pl.col("label_index").cast(pl.Int64).fill_null(-1), "kept", "reason", *CORRECTED
        )
        .join(lake.scan("images").select(columns), on="image_id", how="left")
        .with_columns(label_in_split())
        .drop(CORRECTED)
        .sort("role", "rank")
        .collect()
    )
    originals: list[str] = []
    if form in WITH_ORIGINALS:
        originals = lake.snapshot.file_places("originals")
        rows = _with_files(lake, rows, link=link)
    wanted = rows.filter("kept" if sanitized else pl.lit(value=True))
    if wanted.is_empty():
        raise LakeError(f"split '{split}' has no rows left after sanitizing: export it with --original.")
    files = lake.snapshot.file_places("images")
    parts = {role: wanted.filter(pl.col("role") == role).drop("role") for role in ROLES}
    found = tuple(locate_role(role, part, files, originals, check=check) for role, part in parts.items() if len(part))
    return Selection(split, found, tuple(lake.class_names(split)), rows.filter(~pl.col("kept") & sanitized))


def _with_files(lake: Lake, rows: pl.DataFrame, *, link: bool) -> pl.DataFrame:
    """Add the columns format, location and attr:NAME, and with `link` the column source."""
    formats = lake.scan("originals").filter(pl.col("format") != PIXELS).select("image_id", "format", "location")
    rows = rows.join(formats.collect(), on="image_id", how="left", maintain_order="left")
    rows = rows.join(_attributes(lake), on="image_id", how="left", maintain_order="left")
    if not link:
        return rows
    rows = rows.join(_source_files(lake), on=["dataset", "split", "shard"], how="left", maintain_order="left")
    return rows.with_columns(pl.coalesce("location", pl.col("source") + "/" + pl.col("path")).alias("source"))


def _attributes(lake: Lake) -> pl.DataFrame:
    """Read the attributes of all images as text: columns image_id and, for each attribute, attr:NAME, by name.

    Attributes of lists, and others of which an image has several values, are lists in JSON.
    """
    units = lake.snapshot.metadata("attributes").units.values()
    lists = [name for unit in units for name, found in unit["names"].items() if found["list"] or found["several"]]
    as_json = pl.struct("values").struct.json_encode().str.strip_prefix('{"values":').str.strip_suffix("}")
    rows = (
        lake.scan("attributes")
        .group_by("image_id", "name")
        .agg(values=pl.col("value").sort())
        .with_columns(value=pl.when(pl.col("name").is_in(lists)).then(as_json).otherwise(pl.col("values").list.first()))
        .select("image_id", pl.format("attr:{}", "name").alias("name"), "value")
        .collect()
    )
    return rows.pivot(on="name", on_columns=rows["name"].unique().sort(), index="image_id", values="value")


def _source_files(lake: Lake) -> pl.DataFrame:
    """Find the local folder or file of each shard's source: columns dataset, split, shard and source.

    Raises:
        DamagedLakeError: a file of the table is missing or damaged.
    """
    recorded = lake.snapshot.with_newest("releases").metadata("releases").units.get("recipe", {})
    with storage.damage_errors(f"{lake.root}/shards"):
        shards = lake.scan("shards").select("dataset", "split", "shard", "uri").collect()
    places = {uri: str(Path(recorded.get("base", ""), uri)) for uri in shards["uri"].unique() if "://" not in uri}
    source = pl.col("uri").replace_strict(places, default=None, return_dtype=pl.String)
    return shards.select("dataset", "split", "shard", source.alias("source"))


def _check_outside_of_sources(lake: Lake, target: Path) -> None:
    """Refuse to export into a folder that is a source of the lake: the next build would read the exported files.

    Raises:
        LakeError: the target lies in one.
    """
    folder = target.resolve()
    for source in map(Path, _source_files(lake)["source"].drop_nulls().unique().sort()):
        if source.is_dir() and folder.is_relative_to(source.resolve()):
            raise LakeError(
                f"{target}: lies in {source}, a source of the lake: the next build would read the exported files as "
                f"images. Name a folder outside of {source}."
            )


def _describe(lake: Lake, selection: Selection, form: str, *, sanitized: bool) -> dict[str, Any]:
    """Make the values of export.json. They depend only on the release and the options."""
    return {
        "imagelake": version("imagelake"),
        "lake": lake.root,
        "release": lake.release,
        "split": selection.split,
        "form": form,
        "sanitized": sanitized,
        "images": sum(map(len, selection.roles)),
        "classes": list(selection.classes),
        "roles": {
            role.name: {"images": len(role), "shape": role.shape, "digest": digest_rows([role])}
            for role in selection.roles
        },
        "digest": digest_rows(selection.roles),
    }


def _pin_release(source: Lake, description: Mapping[str, Any], target: Path, on_wait: Callable[[], None] | None) -> str:
    """Add a row to `exports`, so that vacuum keeps the release. Waits while another process writes to the lake.

    Ctrl-C ends the waiting. The exported files stay in any case.

    Args:
        source: the lake.
        description: the values of export.json.
        target: the exported folder.
        on_wait: called once if it has to wait.

    Returns:
        Why the release is not pinned; empty if it is.
    """
    values = {**description, "target": str(target)}
    row = {
        "export_id": digest_of([values[name] for name in ("release", "split", "form", "digest", "target")]),
        "split_name": values["split"],
        "roles": ", ".join(values["roles"]),
        **{name: values[name] for name in ("release", "form", "sanitized", "target", "images", "digest")},
    }
    place = source.root
    if not storage.is_bucket(place) and not os.access(place, os.W_OK):
        return f"{place} cannot be written to"
    try:
        # A transaction without a callback does not wait.
        with registered(place) as writer, transaction(writer, on_wait or (lambda: None)) as lake:
            # Fails if a vacuum deleted the release meanwhile.
            release_versions(lake.snapshot, row["release"])
            register_export(lake, row)
    except KeyboardInterrupt:
        return "interrupted while waiting for another writer of the lake"
    except (ImagelakeError, OSError) as error:
        return one_line(error)
    return ""


def _count_files(folder: Path) -> tuple[int, int, int]:
    """Return the number and total size of the files below a folder, and how many are hard links."""
    found = [os.stat(f"{below}/{name}") for below, _, names in os.walk(folder) for name in names]  # noqa: PTH116 - faster than Path for a file per image
    return len(found), sum(file.st_size for file in found), sum(file.st_nlink > 1 for file in found)


@contextmanager
def _disk_full_errors(target: Path) -> Iterator[None]:
    """Raise DiskFullError with the target and advice for an export."""
    try:
        with storage.disk_full_errors(str(target)):
            yield
    except DiskFullError as error:
        raise DiskFullError(
            f"no space is left on the disk of {target}. All files of the export were deleted; free some space, or "
            "name a folder on another disk."
        ) from error
