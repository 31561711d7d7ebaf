"""Tar archives of class folders, with any compression: read as a stream, never extracted to disk.

A compressed archive is decompressed here, by one process, and workers decode the content that they are given. Of an
archive that is not compressed only the headers are read here, and workers read the content by position.

A hard link is a file like any other: its content is that of the file that it names, which stands before it in the
archive. Links come last, in the order of the files that they name. Only archives with hard links are read twice.
"""

import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

from pipeline.errors import SourceError
from pipeline.shard import Blobs, Deferred, Encoded, Reject, Survey
from pipeline.sources.archives.archive import (
    ARCHIVE_ERRORS,
    Members,
    ReadProgress,
    ShardBuilder,
    are_separators,
    clean_path,
    cut_into_shards,
    encodings_of,
    folders_of,
    make_shard,
    may_need_cleaning,
    rejection,
    select_members,
    unpacked_size_check,
    with_archive_errors,
    with_slashes,
)
from pipeline.sources.archives.tar_walk import CHUNK, FOLDER, HARD_LINK, Header, Run, StreamBuffer, walk_headers
from pipeline.sources.roles import levels_of_paths, splits_of
from pipeline.sources.source import (
    Source,
    beginning,
    files_fingerprint,
    is_compressed,
    label_of,
    may_hold_system_files,
    readable_name,
    shard_key,
    system_file,
    unpacked,
)

# Enough for a header with a long name, or with PAX records before it.
_FIRST_HEADER_BYTES = 2**16


def recognises(path: Path, head: bytes) -> bool:
    """Recognise a tar by its first header, with any compression; see `pipeline.sources`."""
    if path.is_dir() or not head:
        return False
    try:
        with tarfile.open(fileobj=io.BytesIO(beginning(path, _FIRST_HEADER_BYTES)), mode="r:"):
            return True
    except ARCHIVE_ERRORS:
        return False


def splits_within(source: Source) -> dict[str, tuple[str, ...]]:
    """Find the folders of each split; a compressed archive is decompressed for it. See `pipeline.sources.forms`."""
    found = with_archive_errors(source, tar_members(source, content=_is_compressed(source), links=False))
    return splits_of(levels_of_paths(folders_of(found)))


def survey(source: Source) -> Survey:
    """Fingerprint the archive by size and time; its shards show only on progress it. See `pipeline.sources`."""
    return Survey(files_fingerprint(source, source.path))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Read the archive as a stream and cut it into shards; see `pipeline.sources`."""
    fingerprint = survey(source).fingerprint
    progress = ReadProgress()
    packed = _is_compressed(source)
    members = select_members(
        source, with_archive_errors(source, tar_members(source, content=packed, progress=progress))
    )
    for number, batch in enumerate(cut_into_shards(source, members)):
        key = shard_key(source, number)
        if wanted is None or key in wanted:
            contents = Blobs(tuple(batch.members.data)) if packed else _ranges(source, batch)
            yield make_shard(source, key, fingerprint, batch, contents, progress.done)


def _is_compressed(source: Source) -> bool:
    try:
        return is_compressed(source.path)
    except OSError as error:
        raise SourceError(f"{source.title}: cannot read {source.path} ({error.strerror}). Check the path.") from error


def _ranges(source: Source, batch: ShardBuilder) -> Deferred:
    spans = tuple(zip(batch.members.starts, batch.members.sizes, strict=True))
    return Deferred(partial(_read_ranges, source.title, source.path, spans))


def _read_ranges(title: str, path: Path, spans: Sequence[tuple[int, int]]) -> Blobs:
    with path.open("rb") as stream:
        blobs = tuple(os.pread(stream.fileno(), size, start) for start, size in spans)
    if any(len(blob) != size for blob, (_, size) in zip(blobs, spans, strict=True)):
        raise SourceError(f"{title}: the archive {path} was truncated during the build. Build again.")
    return Blobs(blobs)


# Limit of a header with its long names and PAX records; a larger one is damaged or an attack.
_MAX_HEADER_BYTES = 2**24


class _HardLink(NamedTuple):
    """A hard link: its path, the path of its target, and the position before which the target must stand."""

    path: str
    target: str
    place: int


@dataclass(frozen=True)
class _TarReader:
    """Reads the files of a tar once.

    Attributes:
        source: the tar.
        content: whether members contain their data.
        all_folders: whether files in system folders are read too: they may be targets of hard links.
        progress: updated while the archive is read.
    """

    source: Source
    content: bool
    all_folders: bool = False
    progress: ReadProgress = field(default_factory=ReadProgress)

    def members(self) -> Iterator[Members | Reject | _HardLink]:
        """Yield all files and hard links, in the order of the archive."""
        names = _PathReader(self.source)
        with self.source.path.open("rb") as raw, unpacked(raw) as stream:
            size = os.fstat(raw.fileno()).st_size
            check_unpacked_size = unpacked_size_check(self.source)

            def check(position: int) -> None:
                check_unpacked_size(position)
                self.progress.done = raw.tell() / max(1, size)

            buffer = StreamBuffer(cast("io.BufferedIOBase", stream), check, _MAX_HEADER_BYTES)
            end = None if self.content else size
            for found in walk_headers(buffer, content=self.content):
                if isinstance(found, Run):
                    yield from self._read_run(buffer, found, names, end)
                elif found.kind != FOLDER:
                    yield self._read_header(buffer, found, names, end)

    def _read_run(
        self, buffer: StreamBuffer, run: Run, names: "_PathReader", end: int | None
    ) -> Iterator[Members | Reject]:
        """Read a run of files; if the size `end` of the archive is given, only check that they are complete."""
        if end is not None and run.names and run.contents[-1] + run.sizes[-1] > end:
            yield from self._read_run(buffer, Run(run.names[:-1], run.sizes[:-1], run.contents[:-1]), names, end)
            raise EOFError(f"the archive ends in the middle of {readable_name(run.names[-1])}")
        paths, lines = names.paths(run.names)
        data = [b""] * len(paths)
        if end is None:
            held, start = buffer.data, buffer.start
            data = [held[at - start : at - start + size] for at, size in zip(run.contents, run.sizes, strict=True)]
        members = Members(paths, data, run.contents, run.sizes)
        if max(run.sizes, default=0) > self.source.max_bytes or may_hold_system_files(lines):
            for path, content, start, size in zip(*members, strict=True):
                reject = rejection(self.source, path, size, listed=self.all_folders)
                yield reject or Members([path], [content], [start], [size])
        else:
            yield members

    def _read_header(
        self, buffer: StreamBuffer, header: Header, names: "_PathReader", end: int | None
    ) -> Members | Reject | _HardLink:
        """Read a file; if the size `end` of the archive is given, only check that it is complete."""
        path, size, start = names.path(header.name), header.size, header.content
        link = header.kind == HARD_LINK
        reject = rejection(self.source, path, 0 if link else size, "" if link else header.kind, listed=self.all_folders)
        if reject is not None:
            return reject
        if link:
            return _HardLink(path, names.path(header.target), start)
        if start + size > end if end is not None else not buffer.load(start, start + size):
            raise EOFError(f"the archive ends in the middle of {path}")
        begin = start - buffer.start
        data = buffer.data[begin : begin + size] if end is None else b""
        return Members([path], [data], [start], [size])


def tar_members(
    source: Source, *, content: bool = True, progress: ReadProgress | None = None, links: bool = True
) -> Iterator[Members | Reject]:
    """Yield the files and rejects of a tar, in the order of the archive.

    Args:
        source: a tar, compressed or not.
        content: whether members contain their data; else only its position.
        progress: updated while the archive is read.
        links: whether hard links are read, after all other files; else they are rejects.

    Raises:
        tarfile.TarError: the archive is damaged, has no end mark, or continues after it; or another of ARCHIVE_ERRORS.
        SourceError: it is a decompression bomb.
    """
    found: list[_HardLink] = []
    damage = None
    try:
        for item in _TarReader(source, content, progress=progress or ReadProgress()).members():
            if not isinstance(item, _HardLink):
                yield item
            elif links:
                found.append(item)
            else:
                yield _link_reject(
                    item, f"a hard link to {item.target}: not read in a WebDataset. Pack it anew without links"
                )
    except SourceError:
        raise
    except ARCHIVE_ERRORS as error:
        if source.part.truncated != "keep":
            raise
        damage = error
    if found:
        yield from _read_links(source, found, content=content)
    if damage is not None:
        raise damage


def _read_links(source: Source, links: Sequence[_HardLink], *, content: bool) -> Iterator[Members | Reject]:
    """Read the targets of hard links again, and yield them under the paths of the links."""
    links_by_target = _links_by_target(links)
    try:
        yield from _read_targets(source, links_by_target, content=content)
    except SourceError:
        raise
    except ARCHIVE_ERRORS:  # the first pass stopped at the same damage, and its error is raised later
        if source.part.truncated != "keep":
            raise
    left = {link.path for others in links_by_target.values() for link in others}
    for link in links:
        if link.path in left:
            yield _link_reject(link, f"a hard link to {link.target}, which does not stand before it in the archive")


def _read_targets(
    source: Source, links_by_target: dict[str, list[_HardLink]], *, content: bool
) -> Iterator[Members | Reject]:
    """Yield the targets of links, and remove each from `links_by_target`, until there are none left."""
    check, linked = unpacked_size_check(source), 0
    for found in _TarReader(source, content, all_folders=True).members():
        if not links_by_target:
            return
        if isinstance(found, Reject):
            for link in links_by_target.pop(found.path, ()):
                yield found._replace(path=link.path, label=label_of(link.path))
        elif isinstance(found, Members) and not links_by_target.keys().isdisjoint(found.paths):
            for path, data, start, size in zip(*found, strict=True):
                links = links_by_target.pop(path, [])
                for link in (link for link in links if start < link.place):
                    linked += size
                    check(linked)
                    yield Members([link.path], [data], [start], [size])
                if later := [link for link in links if start >= link.place]:
                    links_by_target[path] = later


def _links_by_target(links: Sequence[_HardLink]) -> dict[str, list[_HardLink]]:
    """Group links by the path of their target.

    A link to an earlier link has the target of that link, which stands before both.
    """
    leads: dict[str, _HardLink] = {}
    found: dict[str, list[_HardLink]] = {}
    for link in links:
        first = leads[link.path] = leads.get(link.target, link)
        found.setdefault(first.target, []).append(link._replace(place=first.place))
    return found


def _link_reject(link: _HardLink, detail: str) -> Reject:
    return Reject(link.path, label_of(link.path), "not_a_file", detail, 0)


class _PathReader:
    """Turns the names of a tar into paths.

    Args:
        source: a tar.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._mixed: bool | None = None

    def path(self, name: str) -> str:
        """Return the path of one name."""
        return self.paths([name])[0][0]

    def paths(self, names: list[str]) -> tuple[list[str], str]:
        """Return the paths of many names.

        Args:
            names: as in the archive; bytes that are not UTF-8 are surrogate escapes.

        Returns:
            The paths, and a text of them with a line feed before and after each.
        """
        lines = "\n".join(["", *names, ""])
        paths = names
        if "\\" in lines:
            paths = [_with_slashes_for_folders(name, mixed=self._are_separators(name)) for name in paths]
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


def first_members(path: Path, max_position: int, max_size: int) -> Iterator[tuple[str, int, bytes]]:
    """Read the first files of a tar, up to any damage. In a name with "/", backslashes are not separators here.

    Args:
        path: a file that may be a tar.
        max_position: most uncompressed bytes that are read.
        max_size: files of more bytes are yielded without content.

    Yields:
        Path, size and content of regular files.
    """

    def check(position: int) -> None:
        if position > max_position + CHUNK:
            raise EOFError

    with suppress(*ARCHIVE_ERRORS), path.open("rb") as raw, unpacked(raw) as stream:
        buffer = StreamBuffer(cast("io.BufferedIOBase", stream), check, _MAX_HEADER_BYTES)
        for found in walk_headers(buffer, content=True):
            run = found if isinstance(found, Run) else Run([found.name], [found.size], [found.content])
            if isinstance(found, Header) and found.kind:
                continue
            for name, size, start in zip(*run, strict=True):
                wanted = size <= max_size and buffer.load(start, start + size)
                data = buffer.data[start - buffer.start : start - buffer.start + size] if wanted else b""
                yield clean_path(readable_name(_with_slashes_for_folders(name, mixed=False))), size, data


def _with_slashes_for_folders(name: str, *, mixed: bool) -> str:
    if "\\" not in name:
        return name
    raw, no_slashes = name.encode("utf-8", "surrogateescape"), "/" not in name
    encodings = encodings_of([raw], no_slashes=no_slashes)
    return with_slashes(raw, mixed=mixed, encodings=encodings, no_slashes=no_slashes).decode("utf-8", "surrogateescape")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _file_names(source: Source) -> Iterator[str]:
    """Yield the names of the files of a tar, up to any damage."""
    with suppress(*ARCHIVE_ERRORS), source.path.open("rb") as raw, unpacked(raw) as stream:
        buffer = StreamBuffer(cast("io.BufferedIOBase", stream), unpacked_size_check(source), _MAX_HEADER_BYTES)
        for found in walk_headers(buffer, content=False):
            names = found.names if isinstance(found, Run) else [found.name] if found.kind in ("", HARD_LINK) else []
            yield from (name for name in names if not system_file(name.replace("\\", "/")))
