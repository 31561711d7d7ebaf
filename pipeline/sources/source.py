"""One source of a recipe, resolved: where it really is and in which form."""

import bz2
import gzip
import lzma
import os
import re
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import xxhash
from isal import igzip, isal_zlib

from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.recipe import SourcePart
from pipeline.shard import Refused

# About 8 MB of 28x28 pixels: small enough for many workers, large enough for Parquet.
IMAGES_PER_SHARD = 10_240
BYTES_PER_SHARD = 64 * 2**20

ISAL_ERROR: type[Exception] = isal_zlib.IsalError  # type: ignore[assignment] # its stub calls the class an instance
# What a damaged compressed file raises; only some of it is an OSError.
DAMAGED = (OSError, EOFError, zlib.error, ISAL_ERROR, lzma.LZMAError)


_PICTURE_ENDINGS = frozenset(
    ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "pgm", "ppm", "pbm", "pnm", "jp2", "avif", "heic"]
)


@dataclass(frozen=True)
class Source:
    """One source, resolved.

    Attributes:
        part: what the recipe says of it.
        path: where it is on this machine.
        split: the split its images belong to.
        format: one of `pipeline.recipe.Format`.
        size: (height, width) that the recipe asks for, or None.
        max_bytes: largest encoded image that is read.
        prefix: what goes in front of every path; empty, or a file's name and "/" where a glob found the file.
        group: the uri of that glob or folder, as the recipe spells it; empty where the uri names the source itself.
        folders: only what lies in these folders, or is one of these files, belongs to the source; empty for all.
        without: what lies in these folders, or is one of these files, belongs to other sources of the same uri.
        around: the folder that the folders of all splits lie in, which is no class; empty for the top.
        rest: whether the source reads the files that no other source of its uri reads. There may be none.
        strays: what lies neither in `folders` nor in `without` is a reject here.
        note: what the summary of a build says about the source; empty for nothing.
    """

    part: SourcePart
    path: Path
    split: str
    format: str
    size: tuple[int, int] | None
    max_bytes: int
    prefix: str = ""
    group: str = ""
    folders: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    around: str = ""
    rest: bool = False
    strays: bool = False
    note: str = ""

    @property
    def is_part(self) -> bool:
        """Whether other sources of the same uri have what this one leaves out."""
        return bool(self.folders or self.without)

    def has(self, paths: Sequence[str]) -> list[bool]:
        """Tell which paths inside the source's file or folder belong to the source."""
        if not self.is_part:
            return [True] * len(paths)
        inside, outside = _beginnings(self.folders), _beginnings(self.without)
        return [(not inside or f"{path}/".startswith(inside)) and not f"{path}/".startswith(outside) for path in paths]

    def skips(self, folder: str) -> bool:
        """Tell whether nothing in a folder concerns the source, so that it need not be listed."""
        inside, here = _beginnings(self.folders), f"{folder}/"
        if not self.is_part or here.startswith(_beginnings(self.without)):
            return self.is_part
        around = here.startswith(inside) or any(name.startswith(here) for name in inside)
        return bool(inside) and not self.strays and not around

    def stray(self, path: str) -> bool:
        """Tell whether a path belongs to no source of the uri, and is to be named here."""
        return self.strays and not f"{path}/".startswith(_beginnings((*self.folders, *self.without)))

    def refused_stray(self, path: str, size: int) -> Refused | None:
        """Make a reject of a path that belongs to no source of the uri; None where it belongs to one."""
        if not self.stray(path):
            return None
        named = ", ".join((*self.folders, *self.without))
        return Refused(path, None, "outside_splits", f"lies in none of the folders of `splits`: {named}", size)

    def label_of(self, path: str) -> str | None:
        """Name the class of a file: the folder it lies in; a folder that names a split is none."""
        for folder in self.folders:
            inner = path.removeprefix(f"{folder}/")
            # A file directly in the folder of a split has the class of the folder above: `cats/train/1.png` is cats.
            if inner != path and label_of(inner) is not None:
                return label_of(inner)
            if inner != path:
                path = f"{folder.rpartition('/')[0]}/"
                break
        return None if self.around and path.rpartition("/")[0] == self.around else label_of(path)

    @property
    def uri(self) -> str:
        """The source as the recipe spells it; MNIST's folder of four files is told apart by split."""
        return self.part.uri

    @property
    def dataset(self) -> str:
        """Dataset name from the recipe."""
        return self.part.dataset

    @property
    def title(self) -> str:
        """How messages call the source."""
        return f"{self.dataset}/{self.split} ({self.uri})"


def _beginnings(folders: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{folder}/" for folder in folders)


def shard_key(source: Source, number: int | str) -> str:
    """Name a shard so that no two sources of one dataset and split can meet.

    Args:
        source: the source the shard is cut from.
        number: position of the shard, or what names it where positions move.

    Returns:
        A plain word: the start of the source's name, a digest of its uri, and the number.
    """
    stem = re.sub(r"[^A-Za-z0-9]+", "_", Path(source.uri).name.split(".")[0]).strip("_")[:24]
    text = f"{number:05d}" if isinstance(number, int) else number
    return f"{stem or 'source'}-{xxhash.xxh32_hexdigest(source.uri.encode())}-{text}"


def files_fingerprint(source: Source, *files: Path) -> str:
    """Digest files by name, size and modification time: nothing is opened.

    Args:
        source: whose options that change what is read are part of the digest.
        files: the files that make the source.

    Raises:
        SourceError: a file is gone.
    """
    stats = [(file.name, *_stat(source, file)) for file in files]
    selected = [[*source.folders], [*source.without]] if source.is_part else []
    return digest_of([source.format, source.size, source.max_bytes, stats, *selected])


def _stat(source: Source, file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError as error:
        raise SourceError(f"{source.title}: cannot read {file} ({error.strerror}). Check the path.") from error
    return found.st_size, found.st_mtime_ns


def readable_name(name: str) -> str:
    r"""Make a name from a file system or archive fit for a table: bytes that are no UTF-8 are spelled as \xNN."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry of a folder is a folder, or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_picture_name(name: str) -> bool:
    """Tell by its ending whether a file is meant to be a picture, of a format that is read or not."""
    return name.rpartition(".")[2].lower() in _PICTURE_ENDINGS


def label_of(path: str) -> str | None:
    """Name the class of a file: the folder it lies in; None at the top, or where that is no name.

    A folder that has the name of the picture in it, as in `cat/1.jpg/1.jpg`, is none: the class is the folder above.
    """
    above, _, name = path.rpartition("/")
    above, _, folder = above.rpartition("/")
    while "." in folder and folder.lower() == name.lower() and is_picture_name(folder):
        above, _, folder = above.rpartition("/")
    return folder if folder not in ("", "..") else None


def is_picture_folder(name: str) -> bool:
    """Tell whether a folder is called like a picture: it may have been made for the one picture in it."""
    return "." in name and is_picture_name(name)


def opened(source: Source, file: Path) -> IO[bytes]:
    """Open a file of a source for reading, decompressed where its first bytes say so (gzip, bzip2, xz).

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        return decompressed(file)
    except OSError as error:
        raise SourceError(f"{source.title}: cannot read {file} ({error.strerror}). Check the path.") from error


def decompressed(file: Path) -> IO[bytes]:
    """Open a file for reading, decompressed where its first bytes say so (gzip, bzip2, xz).

    Raises:
        OSError: the file cannot be read; reading it may raise any of DAMAGED.
    """
    with file.open("rb") as raw:
        opener = _opener(raw)
    stream: IO[bytes] = file.open("rb") if opener is None else opener(file, "rb")
    return stream


def beginning(file: Path, size: int) -> bytes:
    """Read the first bytes of a file, decompressed: as far as they are there, where it is cut short or damaged.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as raw:
        found = b""
        # Not igzip, which reads far ahead and loses what it has read where it trips.
        stream = gzip.open(raw) if _opener(raw) is igzip.open else unpacked(raw)  # noqa: SIM115 - closed with raw
        with suppress(*DAMAGED):
            while len(found) < size and (piece := stream.read1(size - len(found))):  # type: ignore[union-attr]
                found += piece
        return found


def unpacked(raw: IO[bytes]) -> IO[bytes]:
    """See an open file decompressed where its first bytes say so: `raw` then tells how far it is read."""
    opener = _opener(raw)
    stream: IO[bytes] = raw if opener is None else opener(raw, "rb")
    return stream


def is_compressed(file: Path) -> bool:
    """Tell whether a file's first bytes are those of gzip, bzip2 or xz.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as raw:
        return _opener(raw) is not None


def _opener(raw: IO[bytes]) -> Callable[..., Any] | None:
    head = raw.read(6)
    raw.seek(0)
    return next((opener for magic, opener in _COMPRESSED.items() if head.startswith(magic)), None)


_COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": igzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


def one_line(error: Exception) -> str:
    """Say in one line what an error says: some come without a message, some with several lines."""
    return " ".join(str(error).split()) or type(error).__name__
