"""The files of a tar archive one after the other, as a stream.

A hard link is a file as any other: its content is that of the file that it names, which stands before it. Links are
handed out last, in the order of the files that they name. Only archives that have links are read a second time.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from pipeline.encoded import Refused
from pipeline.errors import SourceError
from pipeline.sources.backslashes import are_separators, encodings_of, with_slashes
from pipeline.sources.members import (
    BROKEN,
    Members,
    Reading,
    clean_path,
    may_need_cleaning,
    refusal,
    unpacking_check,
)
from pipeline.sources.source import Source, label_of, readable_name, unpacked
from pipeline.sources.system_files import may_hold_system_files, system_file
from pipeline.sources.tarwalk import FOLDER, HARD_LINK, Header, Run, walk
from pipeline.sources.window import CHUNK, Window

if TYPE_CHECKING:
    import io

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
