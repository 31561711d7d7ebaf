"""The files of an archive: how their names are read, and which of them are turned away."""

import re
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress
from typing import NamedTuple

from pipeline.encoded import Refused
from pipeline.errors import SourceError
from pipeline.sources.source import DAMAGED, Source, label_of
from pipeline.sources.system_files import system_file, system_folder

# BadZipFile and TarError name themselves. The others leak out of the standard library where a header holds nonsense:
# a name that is no UTF-8, a length that is no number, a field that is too short.
BROKEN = (tarfile.TarError, zipfile.BadZipFile, ValueError, IndexError, OverflowError, struct.error, *DAMAGED)

# Unpacked, no archive of images is so much larger than packed. A smaller one does no harm, whatever it holds.
_LARGEST_RATIO = 200
_HARMLESS = 2**30
_LARGEST_SIZE = 2**63 - 1
# "./A/x", "A//x" and "/A/x" would all unpack to A/x.
_TO_CLEAN = re.compile(r"^/|//|(^|/)\.(/|$)|/$")
# One of these is in the lines of every path that the pattern above matches: thousands are looked through at once.
_PERHAPS_TO_CLEAN = ("//", "/./", "\n/", "\n./", "/\n", "/.\n", "\n.\n")


class Members(NamedTuple):
    """Files of an archive that follow one another.

    Attributes:
        paths: their names, cleaned: only ever text.
        data: content of each; empty where only its place was asked for.
        starts: position of each content in the unpacked archive.
        sizes: bytes of content.
    """

    paths: list[str]
    data: list[bytes]
    starts: list[int]
    sizes: list[int]

    def chosen(self, which: Sequence[bool]) -> "Members":
        """Take some of these by position."""
        paths, data = list(compress(self.paths, which)), list(compress(self.data, which))
        return Members(paths, data, list(compress(self.starts, which)), list(compress(self.sizes, which)))

    def take(self, others: "Members", which: slice) -> None:
        """Add some of other members behind these."""
        self.paths.extend(others.paths[which])
        self.data.extend(others.data[which])
        self.starts.extend(others.starts[which])
        self.sizes.extend(others.sizes[which])


class Reading:
    """How far a source is read.

    Attributes:
        done: share of it, 0 to 1.
    """

    done = 0.0


def unpacking_check(source: Source) -> Callable[[int], None]:
    """Make a check of how many bytes an archive has unpacked to so far.

    The check raises SourceError where they are so many that the archive can only be a decompression bomb.
    """
    most = max(_HARMLESS, _LARGEST_RATIO * source.path.stat().st_size)

    def check(unpacked: int) -> None:
        if unpacked > most:
            raise SourceError(
                f"{source.title}: the archive {source.path} unpacks to more than {_LARGEST_RATIO} times its size: a "
                "decompression bomb? Nothing was committed. If it is right, unpack it and name the folder."
            )

    return check


def clean_path(name: str) -> str:
    """Bring a name from an archive to the form that unpacking it would give, as text for a table."""
    if _TO_CLEAN.search(name):
        return "/".join(part for part in name.split("/") if part not in ("", "."))
    return name


def of_source(source: Source, found: Iterator[Members | Refused]) -> Iterator[Members | Refused]:
    """Take from the files of an archive those that belong to a source, where others have the rest.

    Args:
        source: whose `folders` and `without` count.
        found: all files of the archive.
    """
    if not source.is_part:
        yield from found
        return
    for item in found:
        if isinstance(item, Refused):
            # A reject that stands for the end of a cut archive concerns every source.
            if source.has([item.path])[0] or item.reason == "truncated":
                yield item._replace(label=item.label and source.label_of(item.path))
            elif source.stray(item.path):
                yield item._replace(label=None)
            continue
        kept = source.has(item.paths)
        if all(kept):
            yield item
            continue
        if any(kept):
            yield item.chosen(kept)
        if source.strays:
            rest = zip(item.paths, item.sizes, strict=True)
            yield from filter(None, (source.refused_stray(path, size) for path, size in rest))


def folders_of(found: Iterable[Members | Refused]) -> set[str]:
    """List the folders that the files of an archive lie in, "" for its top."""
    folders: set[str] = set()
    for item in found:
        if isinstance(item, Refused):
            folders |= {item.path.rpartition("/")[0]} if item.reason != "truncated" else set()
        else:
            folders |= {path.rpartition("/")[0] for path in item.paths}
    return folders


def may_need_cleaning(lines: str) -> bool:
    """Tell quickly whether `clean_path` may change one of many names.

    Args:
        lines: the names, each with a line feed before and behind it.
    """
    return any(mark in lines for mark in _PERHAPS_TO_CLEAN)


def refusal(source: Source, path: str, size: int, kind: str = "", *, listed: bool = False) -> Refused | None:
    """Tell why a member is not read, or None where it is.

    Args:
        source: whose limit on bytes counts.
        path: the cleaned name.
        size: bytes of content, as the archive tells.
        kind: what it is instead of a regular file.
        listed: whether the source names every file: then a file in a hidden folder is intended.
    """
    # A size that no table holds can only be a lie.
    size = min(size, _LARGEST_SIZE)
    folder = "" if listed else system_folder(path.rpartition("/")[0])
    # The class of a system folder's files is not that folder, nor one below it.
    label = None if folder else label_of(path)
    left_behind = system_file(path if not listed else path.rpartition("/")[2])
    if left_behind and (folder or not kind):
        return Refused(path, label, "system_file", left_behind, size)
    if kind:
        return Refused(path, label, "not_a_file", kind, size)
    if size > source.max_bytes:
        detail = f"{size} bytes, more than decode.max_bytes = {source.max_bytes}"
        return Refused(path, label, "too_large", detail, size)
    return None
