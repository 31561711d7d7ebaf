"""A folder of class folders: listed and fingerprinted without opening a file.

Workers open the files. Shards are cut where a file's own name says so (content-defined chunking), so a file more or
less touches two shards at most and leaves the others as they are, whatever the order of the listing.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.encoded import Encoded, Files, Refused, Survey
from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.sources.members import refusal
from pipeline.sources.source import Source, label_of, readable_name, shard_key

# A file more or less re-decodes at most two shards: together no more than 1 % of half a million.
_LARGEST = 2_500


class Entry(NamedTuple):
    """A file as a listing shows it.

    Attributes:
        path: path inside the source.
        name: name on disk, which a worker opens.
        size: in bytes.
        time: of its last change, in nanoseconds.
        fault: why it is no file that could be opened; empty if it is one.
        label: its class, or None.
    """

    path: str
    name: str
    size: int
    time: int
    fault: str
    label: str | None

    @property
    def facts(self) -> tuple[Any, ...]:
        """What, when it changes, makes the file's shard another. A label that the path tells is part of the path."""
        seen = (self.path, self.size, self.time)
        return seen if self.label == label_of(self.path) else (*seen, self.label)


def recognises(path: Path, head: bytes) -> bool:
    """Tell a folder; see `pipeline.sources`."""
    return path.is_dir() and not head


def survey(source: Source) -> Survey:
    """List the folder; see `pipeline.sources`."""
    return survey_files(source, _listed(source))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Hand out the wanted shards by file name; see `pipeline.sources`."""
    return read_files(source, _listed(source), wanted)


def survey_files(source: Source, entries: Sequence[Entry]) -> Survey:
    """Fingerprint files by path, size and time.

    Args:
        source: whose options count.
        entries: its files, by path.
    """
    shards = {key: digest for key, digest, _ in _shards(source, entries)}
    return Survey(digest_of(shards), shards, len(entries))


def read_files(source: Source, entries: Sequence[Entry], wanted: AbstractSet[str] | None) -> Iterator[Encoded]:
    """Hand out files in shards, for workers to open.

    Args:
        source: whose options count.
        entries: its files, by path.
        wanted: keys of the shards to hand out; None for all.
    """
    for key, digest, part in _shards(source, entries):
        if wanted is None or key in wanted:
            refusals = [_refusal(source, entry) for entry in part]
            good = [entry for entry, refused in zip(part, refusals, strict=True) if refused is None]
            yield Encoded(
                shard=key,
                fingerprint=digest,
                paths=tuple(entry.path for entry in good),
                labels=tuple(entry.label for entry in good),
                contents=Files(tuple(entry.name for entry in good)),
                refused=tuple(refused for refused in refusals if refused is not None),
            )


def _listed(source: Source) -> list[Entry]:
    entries = sorted(_walk(source))
    if not entries:
        raise SourceError(f"{source.title}: the folder {source.path} holds no files. Check the path.")
    return entries


def _shards(source: Source, entries: Sequence[Entry]) -> Iterator[tuple[str, str, Sequence[Entry]]]:
    salt = [source.size, source.max_bytes]
    words = np.array([xxhash.xxh3_64_intdigest(entry.path.encode()) for entry in entries], dtype=np.uint64)
    for start, stop in pairwise([0, *_cuts(words, _LARGEST)]):
        part = entries[start:stop]
        # Named for the file in front of it, which belongs to the shard before: a change inside never renames a shard.
        name = f"{words[start - 1]:016x}" if start else "start"
        yield shard_key(source, name), digest_of([salt, [entry.facts for entry in part]]), part


def _cuts(words: NDArray[np.uint64], largest: int) -> list[int]:
    """Positions to cut behind: a run that is too long is cut behind its smallest digest, and its halves likewise.

    The cuts are the upper nodes of a treap with the digests as priorities. One key more splits the path to it in two
    and nothing else, so at most two runs are new; natural cuts of a fixed density would leave runs without any.
    """
    cuts = [len(words)]
    runs = [(0, len(words))]
    while runs:
        start, stop = runs.pop()
        if stop - start > largest:
            cut = start + int(words[start : stop - 1].argmin()) + 1
            cuts.append(cut)
            runs += [(start, cut), (cut, stop)]
    return sorted(cuts)


def _walk(source: Source) -> Iterator[Entry]:
    folders = [(os.fspath(source.path), "")]
    while folders:
        folder, prefix = folders.pop()
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    path = f"{prefix}{readable_name(entry.name)}"
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((entry.path, f"{path}/"))
                    else:
                        yield _look(entry, path)
        except OSError as error:
            where = error.filename or folder
            raise SourceError(f"{source.title}: cannot list {where} ({error.strerror}). Check the folder.") from error


def _look(entry: os.DirEntry[str], path: str) -> Entry:
    try:
        found = entry.stat()
    except OSError:  # a link to nothing, or to itself
        found = entry.stat(follow_symlinks=False)
    return Entry(path, entry.path, found.st_size, found.st_mtime_ns, fault_of(found.st_mode), label_of(path))


def fault_of(mode: int) -> str:
    """Tell by its mode why something is no file that could be opened; empty if it is one.

    A worker that opened a pipe would wait for ever.
    """
    if stat.S_ISREG(mode):
        return ""
    if stat.S_ISLNK(mode):
        return "a link that leads nowhere"
    # To follow links could mean to never end.
    return "a link to a folder: not followed" if stat.S_ISDIR(mode) else "a pipe, socket or device"


def _refusal(source: Source, entry: Entry) -> Refused | None:
    refused = refusal(source, entry.path, 0 if entry.fault else entry.size, entry.fault)
    return refused and refused._replace(label=entry.label)
