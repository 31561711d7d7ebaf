"""The files of an archive: how their names are read, and which of them are turned away.

The files of a tar archive one after the other, as a stream.

A hard link is a file as any other: its content is that of the file that it names, which stands before it. Links are
handed out last, in the order of the files that they name. Only archives that have links are read a second time.
"""

import os
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from pipeline.errors import SourceError
from pipeline.shard import Refused
from pipeline.sources.archives.backslashes import are_separators, encodings_of, with_slashes
from pipeline.sources.archives.tar_walk import CHUNK, FOLDER, HARD_LINK, Header, Run, Window, walk
from pipeline.sources.source import DAMAGED, Source, label_of, readable_name, unpacked
from pipeline.sources.system_files import may_hold_system_files, system_file, system_folder

if TYPE_CHECKING:
    import io


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


# A header with all its long names and PAX records; larger ones are an attack.
_LONGEST_HEADER = 2**24


class _Link(NamedTuple):
    """A hard link: its path, that of the file that it names, and the place that this file must stand before."""

    path: str
    target: str
    place: int


@dataclass(frozen=True)
class _Pass:
    """One way through a tar archive.

    Attributes:
        source: the tar.
        content: whether members carry their content.
        all_folders: whether files in system folders are read too: a hard link may lead to one.
        reading: told how far the archive is read.
    """

    source: Source
    content: bool
    all_folders: bool = False
    reading: Reading = field(default_factory=Reading)

    def members(self) -> Iterator[Members | Refused | _Link]:
        """Read all files and links, in the order of the archive."""
        names = Names(self.source)
        with self.source.path.open("rb") as raw, unpacked(raw) as stream:
            size = os.fstat(raw.fileno()).st_size
            bomb = unpacking_check(self.source)

            def check(position: int) -> None:
                bomb(position)
                self.reading.done = raw.tell() / max(1, size)

            window = Window(cast("io.BufferedIOBase", stream), check, _LONGEST_HEADER)
            end = None if self.content else size
            for found in walk(window, content=self.content):
                if isinstance(found, Run):
                    yield from self._of_run(window, found, names, end)
                elif found.kind != FOLDER:
                    yield self._of_header(window, found, names, end)

    def _of_run(self, window: Window, run: Run, names: "Names", end: int | None) -> Iterator[Members | Refused]:
        """Read members; where the `end` of the archive's file is given, only look that they are all there."""
        if end is not None and run.names and run.contents[-1] + run.sizes[-1] > end:
            yield from self._of_run(window, Run(run.names[:-1], run.sizes[:-1], run.contents[:-1]), names, end)
            raise EOFError(f"the archive ends in the middle of {readable_name(run.names[-1])}")
        paths, lines = names.paths(run.names)
        data = [b""] * len(paths)
        if end is None:
            held, start = window.data, window.start
            data = [held[at - start : at - start + size] for at, size in zip(run.contents, run.sizes, strict=True)]
        members = Members(paths, data, run.contents, run.sizes)
        if max(run.sizes, default=0) > self.source.max_bytes or may_hold_system_files(lines):
            for path, content, start, size in zip(*members, strict=True):
                refused = refusal(self.source, path, size, listed=self.all_folders)
                yield refused or Members([path], [content], [start], [size])
        else:
            yield members

    def _of_header(self, window: Window, header: Header, names: "Names", end: int | None) -> Members | Refused | _Link:
        """Read a member; where the `end` of the archive's file is given, only look that it is all there."""
        path, size, start = names.path(header.name), header.size, header.content
        link = header.kind == HARD_LINK
        refused = refusal(self.source, path, 0 if link else size, "" if link else header.kind, listed=self.all_folders)
        if refused is not None:
            return refused
        if link:
            return _Link(path, names.path(header.target), start)
        if start + size > end if end is not None else not window.reach(start, start + size):
            raise EOFError(f"the archive ends in the middle of {path}")
        begin = start - window.start
        data = window.data[begin : begin + size] if end is None else b""
        return Members([path], [data], [start], [size])


def tar_members(
    source: Source, *, content: bool = True, reading: Reading | None = None, links: bool = True
) -> Iterator[Members | Refused]:
    """Stream the files of a tar archive: what is read of them, and what is turned away.

    Args:
        source: a tar, compressed or not.
        content: whether members carry their content; without, only where it is.
        reading: told how far the archive is read.
        links: whether hard links are read, behind all other files; else they are turned away where they stand.

    Raises:
        tarfile.TarError: the archive is damaged, has no end mark, or goes on behind it; or what its compression raises.
        SourceError: it unpacks to far more than any archive of images.
    """
    found: list[_Link] = []
    damage = None
    try:
        for item in _Pass(source, content, reading=reading or Reading()).members():
            if not isinstance(item, _Link):
                yield item
            elif links:
                found.append(item)
            else:
                yield _refused(
                    item, f"a hard link to {item.target}: not read in a WebDataset. Pack it anew without links"
                )
    except SourceError:
        raise
    except BROKEN as error:
        if source.part.truncated != "keep":
            raise
        damage = error
    if found:
        yield from _linked(source, found, content=content)
    if damage is not None:
        raise damage


def _linked(source: Source, links: Sequence[_Link], *, content: bool) -> Iterator[Members | Refused]:
    """Read the files that hard links lead to once more, and hand them out by the names of the links."""
    waiting = _by_target(links)
    try:
        yield from _found(source, waiting, content=content)
    except SourceError:
        raise
    except BROKEN:  # the first pass went as far, and its damage is handed on
        if source.part.truncated != "keep":
            raise
    left = {link.path for others in waiting.values() for link in others}
    for link in links:
        if link.path in left:
            yield _refused(link, f"a hard link to {link.target}, which does not stand before it in the archive")


def _found(source: Source, waiting: dict[str, list[_Link]], *, content: bool) -> Iterator[Members | Refused]:
    """Read the files that links wait for, until none waits; each is taken out of those that wait."""
    check, linked = unpacking_check(source), 0
    for found in _Pass(source, content, all_folders=True).members():
        if not waiting:
            return
        if isinstance(found, Refused):
            for link in waiting.pop(found.path, ()):
                yield found._replace(path=link.path, label=label_of(link.path))
        elif isinstance(found, Members) and not waiting.keys().isdisjoint(found.paths):
            for path, data, start, size in zip(*found, strict=True):
                links = waiting.pop(path, [])
                for link in (link for link in links if start < link.place):
                    linked += size
                    check(linked)
                    yield Members([link.path], [data], [start], [size])
                if later := [link for link in links if start >= link.place]:
                    waiting[path] = later


def _by_target(links: Sequence[_Link]) -> dict[str, list[_Link]]:
    """Group links by the file that they lead to.

    A link to an earlier link leads where that one does, to a file that stands before both.
    """
    leads: dict[str, _Link] = {}
    found: dict[str, list[_Link]] = {}
    for link in links:
        first = leads[link.path] = leads.get(link.target, link)
        found.setdefault(first.target, []).append(link._replace(place=first.place))
    return found


def _refused(link: _Link, detail: str) -> Refused:
    return Refused(link.path, label_of(link.path), "not_a_file", detail, 0)


class Names:
    """The names of a tar's files as paths.

    Args:
        source: a tar.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._mixed: bool | None = None

    def path(self, name: str) -> str:
        """Read one name."""
        return self.paths([name])[0][0]

    def paths(self, names: list[str]) -> tuple[list[str], str]:
        """Read names.

        Args:
            names: as the archive spells them; bytes that are no UTF-8 are surrogate escapes.

        Returns:
            Their paths, and these in one text, each with a line feed before and behind it.
        """
        lines = "\n".join(["", *names, ""])
        paths = names
        if "\\" in lines:
            paths = [_separated(name, mixed=self._are_separators(name)) for name in paths]
        if not lines.isascii() and not _is_unicode(lines):
            paths = list(map(readable_name, paths))
        if paths is not names:
            lines = "\n".join(["", *paths, ""])
        if may_need_cleaning(lines):
            paths = list(map(clean_path, paths))
            lines = "\n".join(["", *paths, ""])
        return paths, lines

    def _are_separators(self, name: str) -> bool:
        if "\\" not in name or "/" not in name:
            return False
        if self._mixed is None:
            self._mixed = are_separators(_file_names(self._source))
        return self._mixed


def first_members(path: Path, farthest: int, largest: int) -> Iterator[tuple[str, int, bytes]]:
    """Read the first files of a tar, as far as it is whole, as if backslashes were parts of names that hold "/".

    Args:
        path: a file that may be a tar.
        farthest: so many bytes are read at most.
        largest: a longer file has no content here.

    Yields:
        Path, size and content of regular files.
    """

    def check(position: int) -> None:
        if position > farthest + CHUNK:
            raise EOFError

    with suppress(*BROKEN), path.open("rb") as raw, unpacked(raw) as stream:
        window = Window(cast("io.BufferedIOBase", stream), check, _LONGEST_HEADER)
        for found in walk(window, content=True):
            run = found if isinstance(found, Run) else Run([found.name], [found.size], [found.content])
            if isinstance(found, Header) and found.kind:
                continue
            for name, size, start in zip(*run, strict=True):
                wanted = size <= largest and window.reach(start, start + size)
                data = window.data[start - window.start : start - window.start + size] if wanted else b""
                yield clean_path(readable_name(_separated(name, mixed=False))), size, data


def _separated(name: str, *, mixed: bool) -> str:
    if "\\" not in name:
        return name
    raw, alone = name.encode("utf-8", "surrogateescape"), "/" not in name
    encodings = encodings_of([raw], alone=alone)
    return with_slashes(raw, mixed=mixed, encodings=encodings, alone=alone).decode("utf-8", "surrogateescape")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _file_names(source: Source) -> Iterator[str]:
    """Read the names of a tar's files, as far as it is whole."""
    with suppress(*BROKEN), source.path.open("rb") as raw, unpacked(raw) as stream:
        window = Window(cast("io.BufferedIOBase", stream), unpacking_check(source), _LONGEST_HEADER)
        for found in walk(window, content=False):
            names = found.names if isinstance(found, Run) else [found.name] if found.kind in ("", HARD_LINK) else []
            yield from (name for name in names if not system_file(name.replace("\\", "/")))
