"""A folder of class folders: listed and fingerprinted without opening a file.

Workers open the files. Shards are cut where a file's own name says so (content-defined chunking), so a file more or
less touches two shards at most and leaves the others as they are, whatever the order of the listing.

A link to a folder is followed, also out of the source: `cats -> /data/animals/cat` is a class as any other. A link to a
folder that contains it would never end, and is a reject.

In a folder that `imagelake export` wrote, `labels.json` names the class of every folder (see `exported`).
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.shard import Encoded, Files, Refused, Survey
from pipeline.sources.archives.members import refusal
from pipeline.sources.exported import class_folders, own_files
from pipeline.sources.labels import normal_label
from pipeline.sources.source import Source, is_folder, label_of, readable_name, shard_key
from pipeline.sources.system_files import is_system_folder, system_folder

# A file more or less re-decodes at most two shards: together no more than 1 % of half a million.
_LARGEST = 2_500
# What only tables of a lake have.
_LOG = "/_delta_log/"
_IN_LAKE = "in a lake of imagelake, which is no source"
# Links between folders can lead to one folder in more ways than can be listed.
_MOST_WAYS = 1_000

_Identity = tuple[int, int]


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
        """What, when it changes, makes the file's shard another.

        A label that is the name of the file's folder is part of the path, as version 0.5 had it: so only files that are
        read otherwise since then are read again.
        """
        seen, label = (self.path, self.size, self.time), normal_label(self.label)
        folder = self.path.rpartition("/")[0].rpartition("/")[2]
        return seen if label == (folder if folder not in ("", "..") else None) else (*seen, label)


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
    entries = _as_exported(source, _chosen(source, _lakes_marked(sorted(_walk(source)))))
    if not entries and not source.rest:
        raise SourceError(f"{source.title}: the folder {source.path} holds no files. Check the path.")
    return entries


def _lakes_marked(entries: list[Entry]) -> list[Entry]:
    """Mark the files of a lake that lies in the source: they are no pictures of a set, and no class."""
    if not any(_LOG in entry.path for entry in entries):
        return entries
    lakes = {entry.path.partition(_LOG)[0].rpartition("/")[0] for entry in entries if _LOG in entry.path}
    inside = tuple(f"{lake}/" for lake in lakes if lake)
    return [entry._replace(label=None, fault=_IN_LAKE) if entry.path.startswith(inside) else entry for entry in entries]


def _chosen(source: Source, entries: list[Entry]) -> list[Entry]:
    """Keep the files of this source, without those of other sources of its uri, and set their labels."""
    if not source.is_part:
        return entries
    kept = source.has([entry.path for entry in entries])
    return [
        entry._replace(label=source.label_of(entry.path) if mine else None)
        for entry, mine in zip(entries, kept, strict=True)
        if mine or source.stray(entry.path)
    ]


def _as_exported(source: Source, entries: list[Entry]) -> list[Entry]:
    """Name the classes of an export by their labels, not by their folders, and leave out its files about itself."""
    named, own = class_folders(source.path), own_files(source.path)
    if not named and not own:
        return entries
    kept = [entry for entry in entries if entry.path not in own]
    return [entry._replace(label=named[entry.label]) if entry.label in named else entry for entry in kept]


def _shards(source: Source, entries: Sequence[Entry]) -> Iterator[tuple[str, str, Sequence[Entry]]]:
    if not entries:
        return
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


class _Folder(NamedTuple):
    """A folder to list.

    Attributes:
        name: name on disk.
        prefix: what the paths in it begin with.
        inside: the folder itself, and those that contain it on the way that led here.
    """

    name: str
    prefix: str
    inside: frozenset[_Identity]


def _walk(source: Source) -> Iterator[Entry]:
    top = os.fspath(source.path)
    ways: Counter[_Identity] = Counter()
    try:
        folders = [_Folder(top, "", _containing(top))]
        while folders:
            folder = folders.pop()
            is_data = not system_folder(folder.prefix.rstrip("/"))
            with os.scandir(folder.name) as found:
                for entry in found:
                    path = f"{folder.prefix}{readable_name(entry.name)}"
                    below = _below(folder, entry, path)
                    if isinstance(below, Entry):
                        yield below if is_data else below._replace(label=None)
                        continue
                    if source.skips(path):
                        continue
                    folders.append(below)
                    if entry.is_symlink():
                        _count(source, entry, ways)
    except OSError as error:
        where = error.filename or top
        raise SourceError(f"{source.title}: cannot list {where} ({error.strerror}). Check the folder.") from error


def _below(folder: _Folder, entry: os.DirEntry[str], path: str) -> Entry | _Folder:
    """Tell what a folder holds: a file, or what is no file that could be opened, or a folder to list."""
    if not is_folder(entry):
        return _look(entry, path)
    linked, identity = entry.is_symlink(), _identity(entry.stat())
    if identity in folder.inside:
        what = "a link to a folder that contains it" if linked else "a folder that contains the link to it"
        return _look(entry, path)._replace(fault=f"{what}: not followed, it would never end")
    if linked and is_system_folder(entry.name):
        return _look(entry, path)._replace(fault="a link with the name of a system folder: not followed")
    return _Folder(entry.path, f"{path}/", folder.inside | {identity})


def _containing(top: str) -> frozenset[_Identity]:
    """Identify a folder and all that contain it: a link to one of these leads back here."""
    real = Path(top).resolve()
    return frozenset(_identity(place.stat()) for place in (real, *real.parents))


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def _count(source: Source, entry: os.DirEntry[str], ways: Counter[_Identity]) -> None:
    identity = _identity(entry.stat())
    ways[identity] += 1
    if ways[identity] > _MOST_WAYS:
        raise SourceError(
            f"{source.title}: links lead to the folder at {entry.path} in more than {_MOST_WAYS} ways. Take some of "
            "the links out."
        )


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
    return "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"


def _refusal(source: Source, entry: Entry) -> Refused | None:
    size = 0 if entry.fault else entry.size
    if entry.fault == _IN_LAKE:
        return Refused(entry.path, None, "system_file", _IN_LAKE, entry.size)
    if (stray := source.refused_stray(entry.path, size)) is not None:
        return stray
    # A list names its files one by one, so a file in a hidden folder is intended.
    refused = refusal(source, entry.path, size, entry.fault, listed=source.format == "list")
    return refused and refused._replace(label=entry.label)
