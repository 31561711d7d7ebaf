"""imagefolder: one folder per role, and in it one folder per class, as torchvision's ImageFolder reads them.

Class names are untrusted text. `folder_names` makes folder names of them that are safe on every system and unique.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from pipeline.arrays.exports.file_names import name_files, write_manifest
from pipeline.arrays.exports.selection import (
    CHUNK_BYTES,
    Chunk,
    ExportContext,
    Role,
    Selection,
    encode_chunk,
    read_files,
)
from pipeline.pixels import for_each_value

UNLABELLED = "_unlabelled"

# Characters that are not escaped. At both ends only letters and digits, so that no name is hidden, looks like an
# option, or is "..".
_PLAIN = re.compile(r"[A-Za-z0-9._-]")
_PLAIN_AT_ENDS = re.compile(r"[A-Za-z0-9]")
# Names that Windows reserves for devices, with any extension.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE | re.DOTALL)
# File systems allow 255 bytes for a name, but Windows allows 260 characters for the whole path.
_MAX_LENGTH = 100
_MAX_HEAD = 60


def folder_names(labels: Iterable[str]) -> dict[str, str]:
    """Choose a folder name for every label.

    ASCII letters and digits are kept, and inside the name also `.`, `_` and `-`. Every other byte of the label's UTF-8
    becomes %XX, as in a URL. If labels differ only in case, their capitals become %XX too, because some file systems
    ignore case. A name of more than 100 characters is cut and ends in `%-` and the label's hash. The empty label is
    `%`. No two labels share a folder, no folder is named `UNLABELLED`, and none leads out of its parent folder.

    Args:
        labels: every label once.

    Returns:
        Folder name by label.
    """
    listed = list(labels)
    folded = Counter(label.casefold() for label in listed)
    return {label: _folder_name(label, capitals=folded[label.casefold()] == 1) for label in listed}


def _folder_name(label: str, *, capitals: bool) -> str:
    last, device = len(label) - 1, _DEVICES.fullmatch(label) is not None
    escaped = [
        char if _is_plain(char, end=at in (0, last), capitals=capitals) and not (device and at == 0) else _escape(char)
        for at, char in enumerate(label)
    ]
    name = "".join(escaped) or "%"
    if len(name) <= _MAX_LENGTH:
        return name
    ends = accumulate(map(len, escaped))
    head = "".join(part for part, end in zip(escaped, ends, strict=True) if end <= _MAX_HEAD)
    return f"{head}%-{xxhash.xxh3_128_hexdigest(label.encode())}"


def _is_plain(char: str, *, end: bool, capitals: bool) -> bool:
    plain = _PLAIN_AT_ENDS if end else _PLAIN
    return plain.fullmatch(char) is not None and (capitals or not char.isupper())


def _escape(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode())


class Files(NamedTuple):
    """Images to write.

    Attributes:
        folder: the parent folder.
        names: a relative path per image.
        sources: for each, a local file that may have the same bytes, to link to; None to write a new file.
        chunk: their files or pixels.
    """

    folder: Path
    names: list[str]
    sources: list[str | None]
    chunk: Chunk


def write(folder: Path, selection: Selection, context: ExportContext, *, link: bool = False) -> None:
    """Write ROLE/CLASS/NAME, labels.json with the class name and number of every folder, and manifest.csv.

    An image whose original file the lake has is written as it came, under its name; others are IMAGE_ID.png. Images
    without a label are in `_unlabelled`. Images may have any shapes. With `link`, a file becomes a hard link to its
    source if that is on the same disk and has the same bytes.
    """
    names = folder_names(selection.classes)
    folders = {-1: UNLABELLED, **{number: names[label] for number, label in enumerate(selection.classes)}}
    listed = []
    for role in selection.roles:
        # Only classes with images in the role: torchvision refuses an empty folder.
        for number in role.rows["label_index"].unique().to_list():
            (folder / role.name / folders[number]).mkdir(parents=True)
        in_class = role.rows.select(pl.col("label_index").replace_strict(folders) + "/").to_series()
        files = in_class + name_files(role.rows, ["label_index"])
        source = pl.col("source") if link else pl.lit(None, pl.String)
        named = replace(role, rows=role.rows.with_columns(files.alias("file"), source.alias("source")))
        for written in chain(
            _write_kept(folder / role.name, named),
            context.map(write_files, _others(folder / role.name, named.without_kept())),
        ):
            context.advance(written)
        listed.append(f"{role.name}/" + files)
    (folder / "labels.json").write_text(folders_text(selection.classes), encoding="utf-8")
    write_manifest(folder, selection, listed)


def folders_text(classes: Sequence[str]) -> str:
    """Make the JSON text that names the class of every folder; `pipeline.sources.exported` reads it."""
    names = folder_names(classes)
    listed = [{"label_index": i, "label": label, "folder": names[label]} for i, label in enumerate(classes)]
    return json.dumps([*listed, {"label_index": -1, "label": None, "folder": UNLABELLED}], indent=1) + "\n"


def write_files(files: Files) -> int:
    """Write the images of a chunk, encoded if they have no file; return their number."""
    for name, source, data in zip(files.names, files.sources, encode_chunk(files.chunk), strict=True):
        _write_file(f"{files.folder}/{name}", source, data)
    return len(files.names)


def _write_file(target: str, source: str | None, data: bytes | pa.Buffer) -> None:
    if source is None or not _link(source, target, data):
        with open(target, "xb", buffering=0) as file:  # noqa: PTH123 - a Path costs as much time again
            file.write(data)


def _link(source: str, target: str, data: bytes | pa.Buffer) -> bool:
    """Make a hard link if the source is on the same disk and has these bytes; return whether it was made."""
    try:
        real = Path(source).resolve()
        if real.read_bytes() != data:
            return False
        Path(target).hardlink_to(real)
    except OSError:
        return False
    return True


def _write_kept(folder: Path, role: Role) -> Iterator[int]:
    """Write the original files that the lake keeps, in threads; yield how many were written."""
    if role.originals is None:
        return
    names, sources = (role.rows.filter(role.is_kept)[column] for column in ("file", "source"))

    def write_group(positions: NDArray[np.int64], values: list[pa.Buffer]) -> None:
        for name, source, data in zip(names[positions], sources[positions], values, strict=True):
            _write_file(f"{folder}/{name}", source, data)

    yield from for_each_value(role.originals, "bytes", write_group)


def _others(folder: Path, role: Role) -> Iterator[Files]:
    for chunk in read_files(role, CHUNK_BYTES):
        rows = role.rows[chunk.start : chunk.stop]
        yield Files(folder, rows["file"].to_list(), rows["source"].to_list(), chunk)
