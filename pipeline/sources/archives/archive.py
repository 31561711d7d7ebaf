r"""What tar and zip share: the files of an archive, which of them are rejected, and how they are cut into shards.

A name in an archive is only ever text in a table: it is never opened or joined to a path.

A backslash in a name is a folder separator, the second byte of a character, or a part of a file name. Some Windows
tools write `train\cat\0.png`. Tar and zip only separate folders by "/", so unpacking tools disagree, and read
literally such a name has no folder, and the image no label. The rules here are:

- A backslash byte that is the second byte of a character is kept. Zip names that are not marked as UTF-8 may be in
  Shift-JIS, GBK or Big5, where this byte ends characters such as "表", "能" and "功".
- In a name without "/", every other backslash separates folders.
- In a name with both, backslashes separate folders if the archive was made on Windows, or if all such names of the
  archive have a backslash and two share the text before it. Otherwise the backslash is part of the file name, as in
  `we\ird.png` from Linux.
"""

import re
import struct
import tarfile
import zipfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, compress
from typing import NamedTuple, TypeVar

from pipeline.errors import SourceError, one_line
from pipeline.shard import Contents, Encoded, Reject
from pipeline.sources.source import (
    BYTES_PER_SHARD,
    DAMAGED,
    IMAGES_PER_SHARD,
    Source,
    is_picture_folder,
    label_of,
    system_file,
    system_folder,
)

Item = TypeVar("Item")

# What reading a damaged archive raises. Besides TarError and BadZipFile, the standard library raises the others for a
# damaged header: a name that is not UTF-8, a length that is not a number, a field that is too short.
ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, ValueError, IndexError, OverflowError, struct.error, *DAMAGED)

# No archive of images expands by a larger ratio. An archive that expands to less than the second number is always read.
_MAX_RATIO = 200
_HARMLESS_BYTES = 2**30
_MAX_SIZE = 2**63 - 1
# "./A/x", "A//x" and "/A/x" would all unpack to A/x.
_UNCLEAN = re.compile(r"^/|//|(^|/)\.(/|$)|/$")
# Every path that the pattern above matches contains one of these, between line feeds: a quick test of many paths.
_UNCLEAN_MARKS = ("//", "/./", "\n/", "\n./", "/\n", "/.\n", "\n.\n")


class Members(NamedTuple):
    """Consecutive files of an archive.

    Attributes:
        paths: cleaned paths.
        data: content of each; empty if only its position was read.
        starts: position of each content in the uncompressed archive; in a zip, index of each file in the directory.
        sizes: bytes of each content.
    """

    paths: list[str]
    data: list[bytes]
    starts: list[int]
    sizes: list[int]

    def select(self, which: Sequence[bool]) -> "Members":
        """Return the members for which `which` is true."""
        paths, data = list(compress(self.paths, which)), list(compress(self.data, which))
        return Members(paths, data, list(compress(self.starts, which)), list(compress(self.sizes, which)))

    def extend(self, others: "Members", which: slice) -> None:
        """Append a slice of other members."""
        self.paths.extend(others.paths[which])
        self.data.extend(others.data[which])
        self.starts.extend(others.starts[which])
        self.sizes.extend(others.sizes[which])


class ReadProgress:
    """The progress of reading a source.

    Attributes:
        done: share of the source that is read, 0 to 1.
    """

    done = 0.0


def unpacked_size_check(source: Source) -> Callable[[int], None]:
    """Make a check of the number of uncompressed bytes that were read so far.

    The check raises SourceError for a decompression bomb: an archive that expands to far more than images do.
    """
    limit = max(_HARMLESS_BYTES, _MAX_RATIO * source.path.stat().st_size)

    def check(unpacked: int) -> None:
        if unpacked > limit:
            raise SourceError(
                f"{source.title}: the archive {source.path} expands to more than {_MAX_RATIO} times its size, "
                "like a decompression bomb. Nothing was committed. If it is correct, unpack it and name the folder."
            )

    return check


def clean_path(name: str) -> str:
    """Remove empty and `.` parts from a path, as unpacking the archive would."""
    if _UNCLEAN.search(name):
        return "/".join(part for part in name.split("/") if part not in ("", "."))
    return name


def may_need_cleaning(lines: str) -> bool:
    """Return whether `clean_path` may change one of many paths: a quick test.

    Args:
        lines: the paths, each with a line feed before and after it.
    """
    return any(mark in lines for mark in _UNCLEAN_MARKS)


def rejection(source: Source, path: str, size: int, kind: str = "", *, listed: bool = False) -> Reject | None:
    """Return why a file is not read; None if it is read.

    Args:
        source: the source with the limit on bytes.
        path: the cleaned path.
        size: bytes of content, according to the archive.
        kind: what it is instead of a regular file; empty for a regular file.
        listed: whether the source lists every file: then files in hidden folders are read.
    """
    # A larger size does not fit into the table, and can only be wrong.
    size = min(size, _MAX_SIZE)
    folder = "" if listed else system_folder(path.rpartition("/")[0])
    # A system folder, or a folder in one, is not a class.
    label = None if folder else label_of(path)
    left_behind = system_file(path if not listed else path.rpartition("/")[2])
    if left_behind and (folder or not kind):
        return Reject(path, label, "system_file", left_behind, size)
    if kind:
        return Reject(path, label, "not_a_file", kind, size)
    if size > source.max_bytes:
        detail = f"{size} bytes, more than decode.max_bytes = {source.max_bytes}"
        return Reject(path, label, "too_large", detail, size)
    return None


def select_members(source: Source, found: Iterator[Members | Reject]) -> Iterator[Members | Reject]:
    """Select the files of an archive that belong to a source, if several sources share the archive.

    Args:
        source: the source, with its `folders` and `excluded`.
        found: all files of the archive.
    """
    if not source.is_part:
        yield from found
        return
    for item in found:
        if isinstance(item, Reject):
            # The reject for the lost end of a truncated archive belongs to every source.
            if source.contains([item.path])[0] or item.reason == "truncated":
                yield item._replace(label=item.label and source.label_of(item.path))
            elif source.is_outside(item.path):
                yield item._replace(label=None)
            continue
        kept = source.contains(item.paths)
        if all(kept):
            yield item
            continue
        if any(kept):
            yield item.select(kept)
        if source.rejects_outside:
            rest = zip(item.paths, item.sizes, strict=True)
            yield from filter(None, (source.outside_reject(path, size) for path, size in rest))


def folders_of(found: Iterable[Members | Reject]) -> set[str]:
    """Return the folders of the files of an archive; "" for the top."""
    folders: set[str] = set()
    for item in found:
        if isinstance(item, Reject):
            folders |= {item.path.rpartition("/")[0]} if item.reason != "truncated" else set()
        else:
            folders |= {path.rpartition("/")[0] for path in item.paths}
    return folders


def with_archive_errors(source: Source, members: Iterator[Item]) -> Iterator[Item | Reject]:
    """Pass on the files of an archive, and raise the errors of a damaged archive as SourceError.

    With `truncated = "keep"` in the recipe, the files before the damage are kept, and a reject for the archive comes
    last.

    Raises:
        SourceError: the archive is damaged, cut short, or needs a password.
    """
    try:
        yield from members
    except SourceError:  # a ValueError, which ARCHIVE_ERRORS includes
        raise
    except ARCHIVE_ERRORS as error:
        if source.part.truncated == "keep":
            name, detail = source.path.name, f"damaged or cut short, the rest is lost: {one_line(error)}"
            yield Reject(name, None, "truncated", detail, source.path.stat().st_size)
            return
        keep = ', or keep what comes before with truncated = "keep" in its [[source]]' if source.format != "zip" else ""
        raise SourceError(
            f"{source.title}: the archive {source.path} is damaged or cut short ({one_line(error)}). "
            f"Nothing was committed; fetch it again{keep}."
        ) from error
    except RuntimeError as error:  # raised by zipfile for a password or an unknown compression
        raise SourceError(
            f"{source.title}: the archive {source.path} cannot be unpacked ({one_line(error)}). "
            "Nothing was committed; unpack it with another tool and name the folder."
        ) from error


class ShardBuilder:
    """The files of the next shard.

    Attributes:
        members: files that are read.
        rejects: rejects of the source.
    """

    def __init__(self) -> None:
        self.members = Members([], [], [], [])
        self.rejects: list[Reject] = []
        self._free_bytes = BYTES_PER_SHARD

    @property
    def full(self) -> bool:
        """Whether the shard has its largest number of files or bytes."""
        return len(self.members.paths) + len(self.rejects) >= IMAGES_PER_SHARD or self._free_bytes <= 0

    def take(self, members: Members, begin: int) -> int:
        """Add members from index `begin` on, as many as fit; return the index after the last one."""
        stop = begin + IMAGES_PER_SHARD - len(self.members.paths) - len(self.rejects)
        sizes = members.sizes[begin:stop]
        if sum(sizes) >= self._free_bytes:
            sizes = sizes[: bisect_left(list(accumulate(sizes)), self._free_bytes) + 1]
        self._free_bytes -= sum(sizes)
        stop = begin + len(sizes)
        self.members.extend(members, slice(begin, stop))
        return stop


def cut_into_shards(source: Source, found: Iterator[Members | Reject]) -> Iterator[ShardBuilder]:
    """Cut files into shards, in their order.

    Raises:
        SourceError: there are no files.
    """
    batch, none = ShardBuilder(), True
    for item in found:
        none = False
        if isinstance(item, Reject):
            batch.rejects.append(item)
            if batch.full:
                yield batch
                batch = ShardBuilder()
            continue
        begin = 0
        while begin < len(item.paths):
            begin = batch.take(item, begin)
            if batch.full:
                yield batch
                batch = ShardBuilder()
    if batch.members.paths or batch.rejects:
        yield batch
    if none and not source.is_remainder:
        inside = f" in {', '.join(f'{folder}/' for folder in source.folders)}" if source.folders else ""
        raise SourceError(
            f"{source.title}: the archive {source.path} holds no files{inside}. Check that it is the right one."
        )


def make_shard(  # noqa: PLR0913, PLR0917 - what a shard is made of
    source: Source, key: str, fingerprint: str, batch: ShardBuilder, contents: Contents, done: float
) -> Encoded:
    """Make a shard, with the labels of its files.

    Args:
        source: the archive.
        key: key of the shard.
        fingerprint: fingerprint of the archive.
        batch: the files and rejects of the shard.
        contents: content of the files.
        done: share of the archive that is read, 0 to 1.
    """
    paths = batch.members.paths
    # Labels are found once for each folder: there are far fewer folders than files.
    folders = [path.rpartition("/")[0] for path in paths]
    names = {folder: source.label_of(f"{folder}/") for folder in set(folders)}
    labels = tuple(names[folder] for folder in folders)
    if any(is_picture_folder(label) for label in names.values() if label):
        labels = tuple(map(source.label_of, paths))
    return Encoded(key, fingerprint, tuple(paths), labels, contents, tuple(batch.rejects), done)


_BACKSLASH, _SLASH = b"\\", b"/"
# The smallest first byte of a two-byte character.
_FIRST_LEAD = 0x81
_HALF_WIDTH = ("\uff61", "\uff9f")


def with_slashes(raw: bytes, *, mixed: bool, encodings: Sequence[str], no_slashes: bool) -> bytes:
    """Replace the backslashes of a name that separate folders by slashes.

    Args:
        raw: the name as in the archive.
        mixed: whether backslashes also separate folders in a name that contains "/".
        encodings: the result of `encodings_of` for the names of the archive.
        no_slashes: whether no name of the archive contains "/".
    """
    if _BACKSLASH not in raw or (_SLASH in raw and not mixed):
        return raw
    halves = set() if _is_utf8(raw) else _second_halves(raw, encodings, no_slashes=no_slashes)
    name = bytearray(raw)
    for index, byte in enumerate(raw):
        if byte == _BACKSLASH[0] and index not in halves:
            name[index] = _SLASH[0]
    return bytes(name)


def encodings_of(names: Iterable[bytes], *, no_slashes: bool) -> tuple[str, ...]:
    """Find the two-byte encodings in which all names are valid; none if all names are UTF-8.

    Args:
        names: names that are not marked as UTF-8.
        no_slashes: whether no name contains "/". Then backslashes are needed as separators, and only the likeliest
            encoding is returned.
    """
    not_utf8 = [name for name in names if not _is_utf8(name)]
    found = tuple(encoding for encoding, fits in _ENCODINGS.items() if not_utf8 and all(map(fits, not_utf8)))
    return found[:1] if no_slashes else found


def are_separators(names: Iterable[str]) -> bool:
    """Return whether backslashes separate folders in names that also contain "/".

    They do if each of these names has a backslash, and two share the text before it.

    Args:
        names: names of an archive's files; read up to the first name with "/" and without a backslash.
    """
    folders: set[str] = set()
    shared = False
    for name in names:
        folder, backslash, _ = name.partition("\\")
        if "/" not in name:  # at the top, or written by a Windows tool: it decides nothing
            continue
        if not backslash:
            return False
        shared = shared or folder in folders
        if not shared:
            folders.add(folder)
    return shared


def _second_halves(raw: bytes, encodings: Sequence[str], *, no_slashes: bool) -> set[int]:
    """Find the positions of backslash bytes that are second bytes of characters."""
    if not encodings and not no_slashes:  # unknown encoding: in doubt, no folder name is split
        return {index + 1 for index in range(len(raw) - 1) if raw[index] >= _FIRST_LEAD}
    halves = set()
    for encoding in encodings:
        index = 0
        while index < len(raw):
            wide = raw[index] >= _FIRST_LEAD and _is_character(raw[index : index + 2], encoding)
            if wide and not (no_slashes and _looks_western(raw, index)):
                halves.add(index + 1)
            index += 2 if wide else 1
    return halves


def _looks_western(raw: bytes, index: int) -> bool:
    r"""Return whether the byte is the accented last letter of a word, as in `caf\x82\1.png`, not half a character."""
    before, after = raw[index - 1 : index], raw[index + 2 : index + 3]
    return before.isalpha() and after.isascii() and after not in (b"", _BACKSLASH)


def _is_character(pair: bytes, encoding: str) -> bool:
    text = _decoded(pair, encoding)
    return text is not None and len(text) == 1


def _is_utf8(name: bytes) -> bool:
    return _decoded(name, "utf-8") is not None


def _decoded(name: bytes, encoding: str) -> str | None:
    try:
        return name.decode(encoding)
    except UnicodeDecodeError:
        return None


def _fits_cp932(name: bytes) -> bool:
    """Return whether a name is Shift-JIS without half-width letters, which most Chinese text decodes to."""
    text = _decoded(name, "cp932")
    return text is not None and not any(_HALF_WIDTH[0] <= letter <= _HALF_WIDTH[1] for letter in text)


def _fits(encoding: str) -> Callable[[bytes], bool]:
    return lambda name: _decoded(name, encoding) is not None


# The likeliest first. Most Big5 text is also valid GBK, which splits it into the same characters.
_ENCODINGS = {"cp932": _fits_cp932, "gbk": _fits("gbk"), "big5": _fits("big5"), "shift_jis": _fits("shift_jis")}
