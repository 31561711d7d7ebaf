"""splits, images -> files that other tools read, and a row in `exports` that pins the release they are of.

Register an export in the lake, under the writer's lock: from then on vacuum keeps its release.
"""

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
from pipeline.arrays.exports import FORMS, Form, Selection, Work, digest_rows, place
from pipeline.arrays.exports.notebook import write as write_notebook
from pipeline.engines import Engine
from pipeline.engines.local import LocalEngine
from pipeline.errors import DiskFullError, ImagelakeError, LakeError
from pipeline.hashing import digest_of
from pipeline.lake.releases import register_export, release_versions
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import transaction
from pipeline.lake.writers.heartbeats import registered
from pipeline.lake_handle import Lake
from pipeline.progress import Progress
from pipeline.recipe.parts import ROLES
from pipeline.storage.atomic import check_free, drafting


def nothing() -> None:
    """Do nothing: for those who do not want to know that they wait."""


def pin(root: str, told: Mapping[str, Any], on_wait: Callable[[], None] = nothing) -> str:
    """Add a row to `exports`, waiting for as long as a build or a vacuum holds the lake.

    The files are whole before this begins and stay whatever comes of it; ctrl-C ends the waiting.

    Args:
        root: the lake's folder.
        told: what export.json holds, and `target`.
        on_wait: called once if it has to wait.

    Returns:
        Why the release is not pinned; empty where it is.
    """
    names = ("release", "split", "form", "digest", "target")
    row = {
        "export_id": digest_of([told[name] for name in names]),
        "split_name": told["split"],
        "roles": ", ".join(told["roles"]),
        **{name: told[name] for name in ("release", "form", "sanitized", "target", "images", "digest")},
    }
    if not storage.is_bucket(root) and not os.access(root, os.W_OK):
        return f"{root} cannot be written to"
    try:
        with registered(root) as writer, transaction(writer, on_wait) as lake:
            # A vacuum may have given up the release meanwhile.
            release_versions(lake.snapshot, row["release"])
            register_export(lake, row)
    except KeyboardInterrupt:
        return "waiting for the lake's writer was ended"
    except (ImagelakeError, OSError) as error:
        return " ".join(str(error).split())
    return ""


# What workers import, once for all of them.
_PRELOAD = ("pipeline.arrays.exports",)


class Exported(NamedTuple):
    """What an export wrote.

    Attributes:
        target: the folder.
        release: the release it is of.
        images: images in all roles.
        roles: images by role.
        left_out: roles that are not there: the split lacks them, or sanitizing kept none of their rows.
        files: files in the folder.
        size: their bytes.
        seconds: how long it took, without waiting for the lake to pin the release.
        unpinned: why vacuum does not know of the export; empty where it does.
    """

    target: Path
    release: int
    images: int
    roles: dict[str, int]
    left_out: list[str]
    files: int
    size: int
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
    pinned: bool = True,
    on_wait: Callable[[], None] = nothing,
) -> Exported:
    """Write the roles of a split to a folder, in the order of their ranks.

    The folder appears when it is whole; killed or failed, an export leaves nothing that looks like one. A bounded part
    of the pixels is held at a time. The same release gives the same bytes.

    Args:
        lake: the lake's folder.
        split: name of the split.
        target: folder to make; empty if it is there.
        form: one of `FORMS`.
        roles: which; all that have images by default.
        sanitized: only the rows that sanitizing kept.
        release: which; None for the newest.
        engine: where images are encoded; the local engine on every core if None.
        pickle: with form notebook, write a pickle too.
        pinned: register the export in the lake, so that vacuum keeps its release.
        on_wait: called when the files are whole and somebody else is writing to the lake; it is waited for.

    Raises:
        LakeError: no such form, split or role, or several shapes for a form of arrays, or the target is not free.
        NoReleaseError: there is no lake, or no such release, or vacuum gave it up meanwhile.
        DiskFullError: no space is left; nothing was left behind.
    """
    started = time.monotonic()
    write, place_of = _form(form, pickle=pickle), target.resolve()
    opened = Lake(lake, release)
    if not storage.is_bucket(opened.root) and place_of.is_relative_to(Path(lake).resolve()):
        raise LakeError(f"{target}: lies in the lake, whose files vacuum deletes. Name a folder outside of {lake}.")
    check_free(place_of)
    try:
        selection = _select(opened, split, roles, sanitized=sanitized)
        told = _describe(opened, selection, form, sanitized=sanitized)
        with _full_disk_told(target), drafting(place_of) as folder, Progress() as progress:
            progress.stage(f"export {form}", told["images"])
            workers = engine or LocalEngine(preload=_PRELOAD)
            write(folder, selection, Work(workers.map, progress.advance))
            (folder / "export.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except (OSError, pl.exceptions.PolarsError, pa.ArrowException):
        # Where vacuum deleted the files meanwhile, this error says so.
        release_versions(Snapshot(opened.root), opened.release)
        raise
    counts = {role.name: len(role) for role in selection.roles}
    files, size = _count(place_of)
    seconds = time.monotonic() - started
    unpinned = pin(lake, {**told, "target": str(place_of)}, on_wait) if pinned else "it was asked for so"
    missing = [role for role in roles or ROLES if role not in counts]
    return Exported(place_of, opened.release, told["images"], counts, missing, files, size, seconds, unpinned)


def export_engine(workers: int | None) -> LocalEngine:
    """Make the local engine, with what encoding needs already imported."""
    return LocalEngine(workers, preload=_PRELOAD)


def _form(name: str, *, pickle: bool) -> Form:
    if name not in FORMS:
        raise LakeError(f"no form '{name}'. Forms: {', '.join(FORMS)}.")
    if pickle and name != "notebook":
        raise LakeError(f"a pickle is written with form notebook only, not with {name}.")
    return partial(write_notebook, pickle=True) if pickle else FORMS[name]


def _select(lake: Lake, split: str, roles: Collection[str], *, sanitized: bool) -> Selection:
    """Find the rows of every role, in the order of ranks, and where their pixels lie."""
    drawn = lake.scan("splits").filter(pl.col("split_name") == split)
    if drawn.head(1).collect().is_empty():
        names = lake.scan("splits").select("split_name").unique().collect().to_series().sort().to_list()
        raise LakeError(f"{lake.root} has no split '{split}'. Splits: {', '.join(names) or 'none'}.")
    there = set(drawn.select("role").unique().collect().to_series())
    if absent := [role for role in roles if role not in there]:
        known = ", ".join(role for role in ROLES if role in there)
        raise LakeError(f"split '{split}' has no role '{absent[0]}'. Roles: {known}.")
    columns = ("image_id", "label", "path", "dataset", "split", "height", "width", "channels", "content_hash")
    wanted = pl.col("role").is_in(list(roles or ROLES)) & (pl.col("kept") | pl.lit(not sanitized))
    rows = (
        drawn.filter(wanted)
        .select("role", "rank", "image_id", pl.col("label_index").cast(pl.Int64).fill_null(-1), "kept")
        .join(lake.scan("images").select(columns), on="image_id", how="left")
        .sort("role", "rank")
        .collect()
    )
    if rows.is_empty():
        raise LakeError(f"split '{split}' has no rows left after sanitizing: export it with --original.")
    files = lake.snapshot.file_places("images")
    parts = {role: rows.filter(pl.col("role") == role).drop("role") for role in ROLES}
    found = tuple(place(role, part, files) for role, part in parts.items() if len(part))
    return Selection(split, found, tuple(lake.class_names(split)))


def _describe(lake: Lake, selection: Selection, form: str, *, sanitized: bool) -> dict[str, Any]:
    """Say what an export is, for export.json. Nothing in it changes from one time to the next."""
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


def _count(folder: Path) -> tuple[int, int]:
    """Count files below a folder, and their bytes. Plain strings: there may be as many files as images."""
    found = [os.stat(f"{below}/{name}").st_size for below, _, names in os.walk(folder) for name in names]  # noqa: PTH116 - see above
    return len(found), sum(found)


@contextmanager
def _full_disk_told(target: Path) -> Iterator[None]:
    try:
        with storage.full_disk_named(str(target)):
            yield
    except DiskFullError as error:
        raise DiskFullError(
            f"no space is left on the disk of {target}. What was written of the export is deleted; free some space, or "
            "name a folder on another disk."
        ) from error
