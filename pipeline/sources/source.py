"""A resolved source of a recipe: its place on this machine, its form, and which files belong to it.

Files and folders of operating systems, file servers and tools are no data. System folders are those whose name begins
with one dot (`.git`, `.ipynb_checkpoints`, `.Trash-1000`), and the names below in upper or lower case. A file whose
name begins with a dot may be an image.
"""

import bz2
import gzip
import lzma
import os
import re
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import xxhash
from isal import igzip, isal_zlib

from pipeline.addresses import identity
from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.recipe import SourcePart
from pipeline.shard import Reject
from pipeline.storage import check_regular

# About 8 MB of 28x28 pixels: small enough for many workers, large enough for Parquet.
IMAGES_PER_SHARD = 10_240
BYTES_PER_SHARD = 64 * 2**20

ISAL_ERROR: type[Exception] = isal_zlib.IsalError  # type: ignore[assignment] # its stub calls the class an instance
# What reading a damaged compressed file raises.
DAMAGED = (OSError, EOFError, zlib.error, ISAL_ERROR, lzma.LZMAError)


_PICTURE_ENDINGS = frozenset(
    ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "pgm", "ppm", "pbm", "pnm", "jp2", "avif", "heic"]
)


@dataclass(frozen=True)
class Source:
    """A resolved source.

    Attributes:
        part: its `[[source]]` in the recipe.
        path: where it is on this machine.
        split: the split of its images.
        format: one of `pipeline.recipe.Format`.
        size: (height, width) of the recipe, or None.
        max_bytes: size of the largest encoded image that is read.
        prefix: put before every path: the name of the file and "/" if a pattern matched the file, else empty.
        group: the uri of that pattern or folder in the recipe; empty if the uri names the source itself.
        folders: only files in these folders, or these files, belong to the source; empty for all.
        excluded: files in these folders, and these files, belong to other sources of the same uri.
        split_parent: the folder that contains the folders of all splits, which is not a class; empty for the top.
        is_remainder: whether the source reads the files that no other source of its uri reads. There may be none.
        rejects_outside: whether files neither in `folders` nor in `excluded` are rejects of this source.
        note: a remark for the summary of a build; empty for none.
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
    excluded: tuple[str, ...] = ()
    split_parent: str = ""
    is_remainder: bool = False
    rejects_outside: bool = False
    note: str = ""

    @property
    def is_part(self) -> bool:
        """Whether other sources of the same uri read the other files."""
        return bool(self.folders or self.excluded)

    def contains(self, paths: Sequence[str]) -> list[bool]:
        """Return which paths inside the source's file or folder belong to the source."""
        if not self.is_part:
            return [True] * len(paths)
        inside, outside = _prefixes(self.folders), _prefixes(self.excluded)
        return [(not inside or f"{path}/".startswith(inside)) and not f"{path}/".startswith(outside) for path in paths]

    def can_skip(self, folder: str) -> bool:
        """Return whether a folder contains no file of the source, so that it need not be listed."""
        inside, here = _prefixes(self.folders), f"{folder}/"
        if not self.is_part or here.startswith(_prefixes(self.excluded)):
            return self.is_part
        around = here.startswith(inside) or any(name.startswith(here) for name in inside)
        return bool(inside) and not self.rejects_outside and not around

    def is_outside(self, path: str) -> bool:
        """Return whether a path belongs to no source of the uri, and is a reject of this one."""
        return self.rejects_outside and not f"{path}/".startswith(_prefixes((*self.folders, *self.excluded)))

    def outside_reject(self, path: str, size: int) -> Reject | None:
        """Make the reject of a path that belongs to no source of the uri; None for other paths."""
        if not self.is_outside(path):
            return None
        named = ", ".join((*self.folders, *self.excluded))
        return Reject(path, None, "outside_splits", f"lies in none of the folders of `splits`: {named}", size)

    def label_of(self, path: str) -> str | None:
        """Return the class of a file: the name of its folder; the folder of a split is not a class."""
        for folder in self.folders:
            inner = path.removeprefix(f"{folder}/")
            # A file directly in the folder of a split has the class of the folder above: `cats/train/1.png` is `cats`.
            if inner != path and label_of(inner) is not None:
                return label_of(inner)
            if inner != path:
                path = f"{folder.rpartition('/')[0]}/"
                break
        return None if self.split_parent and path.rpartition("/")[0] == self.split_parent else label_of(path)

    @property
    def uri(self) -> str:
        """The uri in the recipe, without secrets. The sources of one IDX folder share it, and have different splits."""
        return identity(self.part.uri)

    @property
    def dataset(self) -> str:
        """The dataset of the recipe."""
        return self.part.dataset

    @property
    def title(self) -> str:
        """The name of the source in messages."""
        return f"{self.dataset}/{self.split} ({self.uri})"


def _prefixes(folders: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{folder}/" for folder in folders)


def shard_key(source: Source, number: int | str) -> str:
    """Make the key of a shard, unique within its dataset and split.

    Args:
        source: the source of the shard.
        number: index of the shard, or a name if indices can change.

    Returns:
        The start of the source's file name, a digest of its uri, and the number.
    """
    stem = re.sub(r"[^A-Za-z0-9]+", "_", Path(source.uri).name.split(".")[0]).strip("_")[:24]
    text = f"{number:05d}" if isinstance(number, int) else number
    return f"{stem or 'source'}-{xxhash.xxh32_hexdigest(source.uri.encode())}-{text}"


def files_fingerprint(source: Source, *files: Path) -> str:
    """Fingerprint files by name, size and modification time, without opening them.

    Args:
        source: the source; options that change what is read are part of the fingerprint.
        files: all files of the source.

    Raises:
        SourceError: a file does not exist.
    """
    stats = [(file.name, *_stat(source, file)) for file in files]
    selected = [[*source.folders], [*source.excluded]] if source.is_part else []
    return digest_of([source.format, source.size, source.max_bytes, stats, *selected])


def _stat(source: Source, file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError as error:
        raise SourceError(f"{source.title}: cannot read {file} ({error.strerror}). Check the path.") from error
    return found.st_size, found.st_mtime_ns


def readable_name(name: str) -> str:
    r"""Make a file name fit for a table: bytes that are not UTF-8 are written as \xNN."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry of a folder is a folder or a link to one; False for a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_picture_name(name: str) -> bool:
    """Return whether a file name has the ending of an image format, whether imagelake reads the format or not."""
    return name.rpartition(".")[2].lower() in _PICTURE_ENDINGS


def label_of(path: str) -> str | None:
    """Return the class of a file: the name of its folder; None at the top, or if the folder has no name.

    A folder with the name of its image, as in `cat/1.jpg/1.jpg`, is not a class: the class is the folder above.
    """
    above, _, name = path.rpartition("/")
    above, _, folder = above.rpartition("/")
    while "." in folder and folder.lower() == name.lower() and is_picture_name(folder):
        above, _, folder = above.rpartition("/")
    return folder if folder not in ("", "..") else None


def is_picture_folder(name: str) -> bool:
    """Return whether a folder has the name of an image file: it may have been made for the image in it."""
    return "." in name and is_picture_name(name)


def opened(source: Source, file: Path) -> IO[bytes]:
    """Open a file of a source for reading; gzip, bzip2 and xz are recognised by their first bytes and decompressed.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        return decompressed(file)
    except OSError as error:
        raise SourceError(f"{source.title}: cannot read {file} ({error.strerror}). Check the path.") from error


def decompressed(file: Path) -> IO[bytes]:
    """Open a file for reading; gzip, bzip2 and xz are recognised by their first bytes and decompressed.

    Raises:
        OSError: the file cannot be read; reading it may raise any of DAMAGED.
    """
    check_regular(file)
    with file.open("rb") as raw:
        opener = _opener(raw)
    stream: IO[bytes] = file.open("rb") if opener is None else opener(file, "rb")
    return stream


def beginning(file: Path, size: int) -> bytes:
    """Read the first bytes of a file, decompressed; fewer bytes if the file is truncated or damaged.

    Raises:
        OSError: the file cannot be read.
    """
    check_regular(file)
    with file.open("rb") as raw:
        found = b""
        # Not igzip, which reads far ahead and loses the bytes before any damage.
        stream = gzip.open(raw) if _opener(raw) is igzip.open else unpacked(raw)  # noqa: SIM115 - closed with raw
        with suppress(*DAMAGED):
            while len(found) < size and (piece := stream.read1(size - len(found))):  # type: ignore[union-attr]
                found += piece
        return found


def unpacked(raw: IO[bytes]) -> IO[bytes]:
    """Return an open file, decompressed if it is compressed; the position of `raw` shows the progress."""
    opener = _opener(raw)
    stream: IO[bytes] = raw if opener is None else opener(raw, "rb")
    return stream


def is_compressed(file: Path) -> bool:
    """Return whether a file is compressed with gzip, bzip2 or xz.

    Raises:
        OSError: the file cannot be read.
    """
    check_regular(file)
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

_FOLDERS = frozenset(
    [
        "__macosx",  # macOS, in zip archives
        "network trash folder",
        "temporary items",
        "$recycle.bin",  # Windows
        "system volume information",
        "lost+found",  # Linux
        "@eadir",  # Synology
        "@tmp",
        "#recycle",
        "#snapshot",
        "@recycle",  # QNAP
        "@recently-snapshot",
        "@__thumb",
        "~snapshot",  # NetApp
        "__pycache__",
    ]
)
_FILES = frozenset(
    [
        ".ds_store",  # macOS
        ".localized",
        ".apdisk",
        ".volumeicon.icns",
        "icon\r",
        "thumbs.db",  # Windows
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        ".directory",  # KDE
        ".hidden",  # GNOME
        ".nomedia",  # Android
        "picasa.ini",
        ".picasa.ini",
        ".dropbox",
        ".dropbox.attr",
        ".gitignore",
        ".gitattributes",
        ".gitkeep",
        ".gitmodules",
        ".keep",
        ".dvcignore",
    ]
)
# Windows marks a downloaded file with an alternate data stream, which other systems unpack as a file beside it.
_STREAM_ENDINGS = ("zone.identifier", ":encryptable")
# Each name above and every hidden folder contains one of these, in a text of paths in lower case, one on each line.
_RARE_CHARACTERS = "@#$~+:\r"
_MARKS = ("/.", "\n.", "thumbs", "desktop.ini", "picasa.ini", "macosx", "pycache", "zone.identifier")
_SPACED_MARKS = ("system volume", "network trash", "temporary items")


def may_hold_system_files(lines: str) -> bool:
    """Return whether one of many paths may be a system file: a quick test; False means that none is.

    Args:
        lines: the paths, each with a line feed before and after it.
    """
    text = lines.lower()
    if any(character in text for character in _RARE_CHARACTERS) or any(mark in text for mark in _MARKS):
        return True
    return " " in text and any(mark in text for mark in _SPACED_MARKS)


def system_file(path: str) -> str:
    """Return why a file is a system file, by its name or one of its folders; empty if it is not."""
    folder, _, name = path.rpartition("/")
    found = folder and system_folder(folder)
    if found:
        return f"in {found}, a hidden folder or one of an operating system or tool"
    return "left beside files by an operating system" if _is_system_name(name.lower()) else ""


@lru_cache(2**16)
def system_folder(path: str) -> str:
    """Return the first system folder in the path of a folder; empty if there is none."""
    return next(filter(is_system_folder, path.split("/")), "")


def is_system_folder(name: str) -> bool:
    """Return whether a folder name is that of a system folder. A name that begins with two dots is not."""
    return (name[:1] == "." and name[1:2] not in ("", ".")) or name.lower() in _FOLDERS


def _is_system_name(name: str) -> bool:
    return name.startswith("._") or name in _FILES or name.endswith(_STREAM_ENDINGS)
