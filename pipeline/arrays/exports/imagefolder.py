"""imagefolder: a folder a role, in it a folder a class: for torchvision's ImageFolder and others that read such."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from pipeline.arrays.exports.naming import UNLABELLED, folder_names
from pipeline.arrays.exports.pieces import PIECE_BYTES, Piece, pieces
from pipeline.arrays.exports.png import encode
from pipeline.arrays.exports.selection import Role, Selection, Work


class Files(NamedTuple):
    """Pictures and where each goes: below which folder, under which names."""

    folder: Path
    names: list[str]
    piece: Piece


def write(folder: Path, selection: Selection, work: Work) -> None:
    """Write ROLE/CLASS/IMAGE_ID.png, and labels.json, which has the class name and number of every folder.

    Images without a label lie in `_unlabelled`. Any shapes.
    """
    named = folder_names(selection.classes)
    for role in selection.roles:
        folders = {-1: UNLABELLED, **{number: named[label] for number, label in enumerate(selection.classes)}}
        # Only classes that the role has images of: torchvision refuses an empty folder.
        for number in role.rows["label_index"].unique().to_list():
            (folder / role.name / folders[number]).mkdir(parents=True)
        for written in work.map(write_files, _files(folder / role.name, role, folders)):
            work.advance(written)
    (folder / "labels.json").write_text(folders_text(selection.classes), encoding="utf-8")


def folders_text(classes: Sequence[str]) -> str:
    """Make the JSON text that names the class of every folder; `pipeline.sources.exported` reads it."""
    named = folder_names(classes)
    listed = [{"label_index": i, "label": label, "folder": named[label]} for i, label in enumerate(classes)]
    return json.dumps([*listed, {"label_index": -1, "label": None, "folder": UNLABELLED}], indent=1) + "\n"


def write_files(files: Files) -> int:
    """Encode and write the pictures of a piece, in a worker; tell how many."""
    for name, data in zip(files.names, encode(files.piece), strict=True):
        with open(f"{files.folder}/{name}", "xb", buffering=0) as file:  # noqa: PTH123 - a path object costs as much again
            file.write(data)
    return len(files.names)


def _files(folder: Path, role: Role, folders: dict[int, str]) -> Iterator[Files]:
    named = role.rows.select(
        pl.concat_str(
            pl.col("label_index").replace_strict(folders),
            pl.lit("/"),
            pl.col("image_id").bin.encode("hex"),
            pl.lit(".png"),
        )
    ).to_series()
    for piece in pieces(role, PIECE_BYTES):
        yield Files(folder, named[piece.start : piece.stop].to_list(), piece)
