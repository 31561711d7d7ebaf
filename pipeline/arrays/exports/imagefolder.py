"""imagefolder: a folder a role, in it a folder a class: for torchvision's ImageFolder and others that read such.

Names of folders for class names, which are foreign text: safe everywhere, never the same for two.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import polars as pl
import xxhash

from pipeline.arrays.exports.png import encode
from pipeline.arrays.exports.selection import PIECE_BYTES, Piece, Role, Selection, Work, pieces

UNLABELLED = "_unlabelled"

# What stands for itself; at either end only letters and digits, so that no name is hidden, an option, or "..".
_PLAIN = re.compile(r"[A-Za-z0-9._-]")
_PLAIN_AT_ENDS = re.compile(r"[A-Za-z0-9]")
# Names that Windows keeps for devices, with whatever ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE | re.DOTALL)
# File systems take 255 bytes, but Windows 260 characters for the whole path.
_LONGEST = 100
_HEAD = 60


def folder_names(labels: Iterable[str]) -> dict[str, str]:
    """Name a folder for every label.

    ASCII letters, digits and, inside, `.`, `_` and `-` stay; every other byte of the label's UTF-8 becomes %XX, as in
    an address. Labels that differ only in case get their capitals as %XX too, as some file systems do not tell them
    apart. What becomes longer than 100 characters is cut, and ends in `%-` and the label's hash; the empty label is
    `%`. So no two labels share a folder, none is named as `UNLABELLED`, and none leads elsewhere.

    Args:
        labels: every label once.

    Returns:
        Folder by label.
    """
    listed = list(labels)
    folded = Counter(label.casefold() for label in listed)
    return {label: _name(label, capitals=folded[label.casefold()] == 1) for label in listed}


def _name(label: str, *, capitals: bool) -> str:
    last, device = len(label) - 1, _DEVICES.fullmatch(label) is not None
    spelled = [
        char if _stays(char, end=at in (0, last), capitals=capitals) and not (device and at == 0) else _hex(char)
        for at, char in enumerate(label)
    ]
    name = "".join(spelled) or "%"
    if len(name) <= _LONGEST:
        return name
    ends = accumulate(map(len, spelled))
    head = "".join(part for part, end in zip(spelled, ends, strict=True) if end <= _HEAD)
    return f"{head}%-{xxhash.xxh3_128_hexdigest(label.encode())}"


def _stays(char: str, *, end: bool, capitals: bool) -> bool:
    plain = _PLAIN_AT_ENDS if end else _PLAIN
    return plain.fullmatch(char) is not None and (capitals or not char.isupper())


def _hex(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode())


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
