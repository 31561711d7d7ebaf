"""The files of an archive one after the other: what is read of them, and what is turned away."""

import os
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

from pipeline.encoded import Refused
from pipeline.errors import SourceError
from pipeline.sources.source import Source, label_of, unpacked
from pipeline.sources.tarwalk import Header, Run, walk
from pipeline.sources.window import Window

if TYPE_CHECKING:
    import io

# Unpacked, no archive of images is so much larger than packed. A smaller one does no harm, whatever it holds.
_LARGEST_RATIO = 200
_HARMLESS = 2**30
# A header with all its long names and PAX records; larger ones are an attack.
_LONGEST_HEADER = 2**24
_LARGEST_SIZE = 2**63 - 1
# "./A/x", "A//x" and "/A/x" would all unpack to A/x.
_TO_CLEAN = re.compile(r"^/|//|(^|/)\.(/|$)|/$")
_SYSTEM = re.compile(r"(^|/)(\._[^/]*|\.DS_Store|Thumbs\.db|desktop\.ini|__MACOSX/.*)$")
# One of these is in the lines of every path that the patterns above match: thousands are looked through at once.
_PERHAPS_TO_CLEAN = ("//", "/./", "\n/", "\n./", "/\n", "/.\n", "\n.\n")
_PERHAPS_SYSTEM = ("/._", "\n._", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/")


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


def tar_members(source: Source, *, content: bool = True, reading: Reading | None = None) -> Iterator[Members | Refused]:
    """Stream the files of a tar archive, in its order: what is read of them, and what is turned away.

    Args:
        source: a tar, compressed or not.
        content: whether members carry their content; without, only where it is.
        reading: told how far the archive is read.

    Raises:
        tarfile.TarError: the archive is damaged, has no end mark, or goes on behind it; or what its compression raises.
        SourceError: it unpacks to far more than any archive of images.
    """
    reading = reading or Reading()
    with source.path.open("rb") as raw, unpacked(raw) as stream:
        size = os.fstat(raw.fileno()).st_size
        bomb = unpacking_check(source)

        def check(position: int) -> None:
            bomb(position)
            reading.done = raw.tell() / max(1, size)

        window = Window(cast("io.BufferedIOBase", stream), check, _LONGEST_HEADER)
        for found in walk(window, content=content):
            if isinstance(found, Run):
                yield from _of_run(source, window, found, None if content else size)
            elif found.kind != "folder":
                yield _of_header(source, window, found, None if content else size)


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


def refusal(source: Source, path: str, size: int, kind: str = "") -> Refused | None:
    """Tell why a member is not read, or None where it is.

    Args:
        source: whose limit on bytes counts.
        path: the cleaned name.
        size: bytes of content, as the archive tells.
        kind: what it is instead of a regular file.
    """
    # A size that no table holds can only be a lie.
    size = min(size, _LARGEST_SIZE)
    if kind:
        return Refused(path, label_of(path), "not_a_file", kind, size)
    if _SYSTEM.search(path):
        return Refused(path, label_of(path), "system_file", "left beside files by an operating system", size)
    if size > source.max_bytes:
        detail = f"{size} bytes, more than decode.max_bytes = {source.max_bytes}"
        return Refused(path, label_of(path), "too_large", detail, size)
    return None


def _of_run(source: Source, window: Window, run: Run, end: int | None) -> Iterator[Members | Refused]:
    """Read members; where the `end` of the archive's file is given, only look that they are all there."""
    if end is not None and run.names and run.contents[-1] + run.sizes[-1] > end:
        yield from _of_run(source, window, Run(run.names[:-1], run.sizes[:-1], run.contents[:-1]), end)
        raise EOFError(f"the archive ends in the middle of {run.names[-1]}")
    text = "\n".join(["", *run.names, ""])
    paths = run.names
    if any(mark in text for mark in _PERHAPS_TO_CLEAN):
        paths = list(map(clean_path, paths))
        text = "\n".join(["", *paths, ""])
    data = [b""] * len(paths)
    if end is None:
        held, start = window.data, window.start
        data = [held[at - start : at - start + size] for at, size in zip(run.contents, run.sizes, strict=True)]
    members = Members(paths, data, run.contents, run.sizes)
    if max(run.sizes, default=0) > source.max_bytes or any(mark in text for mark in _PERHAPS_SYSTEM):
        yield from _judged(source, members)
    else:
        yield members


def _judged(source: Source, members: Members) -> Iterator[Members | Refused]:
    for path, data, start, size in zip(*members, strict=True):
        yield refusal(source, path, size) or Members([path], [data], [start], [size])


def _of_header(source: Source, window: Window, header: Header, end: int | None) -> Members | Refused:
    """Read a member; where the `end` of the archive's file is given, only look that it is all there."""
    path, size, start = clean_path(header.name), header.size, header.content
    refused = refusal(source, path, size, header.kind)
    if refused is not None:
        return refused
    if start + size > end if end is not None else not window.reach(start, start + size):
        raise EOFError(f"the archive ends in the middle of {path}")
    begin = start - window.start
    return Members([path], [window.data[begin : begin + size] if end is None else b""], [start], [size])
