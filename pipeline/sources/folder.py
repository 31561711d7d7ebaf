"""Folders of class folders: files are listed and fingerprinted here, and opened by workers.

Files are cut into shards in the order of their paths. A build cuts only files that are in no shard of the lake yet, so
a new file changes no other shard.

A link to a folder is followed, also out of the source: `cats -> /data/animals/cat` is a class. A link to a folder that
contains it would never end, and is a reject.

In an export of imagelake, `labels.json` names the class of every folder (see `exported`).
"""

import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.shard import Encoded, Files, Listing, Positions, Reject, Survey, fingerprint_of_files
from pipeline.sources.archives.archive import rejection
from pipeline.sources.exported import class_folders, export_files
from pipeline.sources.labels import normal_label
from pipeline.sources.source import (
    Source,
    is_folder,
    is_system_folder,
    label_of,
    readable_name,
    shard_key,
    system_folder,
)

# Most files of a shard. A file that changes copies at most so many rows: no more than 0.5 % of half a million files.
_LARGEST = 2_500
# Most bytes of a shard, encoded and, if their size is known, decoded: so that large files are work for every core.
_LARGEST_BYTES = 96 * 2**20
# Folder that only tables of a lake have.
_LOG = "/_delta_log/"
_IN_LAKE = "in a lake of imagelake, which is no source"
# Most paths by which links may lead to one folder; links can make their number grow without limit.
_MAX_PATHS = 1_000

_Identity = tuple[int, int]


class Entry(NamedTuple):
    """A file of the source.

    Attributes:
        path: path inside the source.
        name: path on disk, which a worker opens.
        size: in bytes.
        time: of its last change, in nanoseconds.
        fault: why it cannot be opened, such as a link to nothing; empty for a regular file.
        label: its class, or None.
    """

    path: str
    name: str
    size: int
    time: int
    fault: str
    label: str | None

    @property
    def fingerprint_parts(self) -> tuple[Any, ...]:
        """The values that change the fingerprint of the shard when they change.

        A label that is the name of the file's folder is already part of the path. It is left out, as in version 0.5, so
        that files with an unchanged label are not read again.
        """
        seen, label = (self.path, self.size, self.time), normal_label(self.label)
        folder = self.path.rpartition("/")[0].rpartition("/")[2]
        return seen if label == (folder if folder not in ("", "..") else None) else (*seen, label)

    def digest(self, salt: str) -> bytes:
        """Digest the values that change the fingerprint of the shard: 16 bytes.

        Args:
            salt: settings of the source that change it too.
        """
        path, size, time, *label = self.fingerprint_parts
        text = f"{salt}\0{path}\0{size}\0{time}"
        return xxhash.xxh3_128_digest((f"{text}\0{json.dumps(label)}" if label else text).encode())

    @property
    def state(self) -> bytes:
        """Digest of the values that change when the content of the file changes; see `Files.states`."""
        return xxhash.xxh3_64_digest(f"{self.size} {self.time}".encode())


def recognises(path: Path, head: bytes) -> bool:
    """Recognise a folder; see `pipeline.sources`."""
    return path.is_dir() and not head


def survey(source: Source) -> Survey:
    """List the folder; see `pipeline.sources`."""
    return survey_files(source, _list_files(source))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Yield the shards as names of files; see `pipeline.sources`."""
    return read_files(source, _list_files(source), wanted)


def survey_files(source: Source, entries: Sequence[Entry]) -> Survey:
    """Fingerprint files by path, size and time.

    Args:
        source: the source, with its options.
        entries: its files, ordered by path.
    """
    files = _listing(source, entries)
    cut = files.cut(np.arange(len(entries)))
    shards = {key: fingerprint_of_files(files.digests[part]) for key, part in cut.items()}
    return Survey(fingerprint_of_files(files.digests), shards, len(entries), files)


def read_files(source: Source, entries: Sequence[Entry], wanted: AbstractSet[str] | None) -> Iterator[Encoded]:
    """Yield files in shards, for workers to open.

    Args:
        source: the source, with its options.
        entries: its files, ordered by path.
        wanted: keys of the shards to yield; None for all.
    """
    files = _listing(source, entries)
    cut = files.cut(np.arange(len(entries)))
    return files.read({key: part for key, part in cut.items() if wanted is None or key in wanted})


def _listing(source: Source, entries: Sequence[Entry]) -> Listing:
    salt = f"{source.size} {source.max_bytes}"
    digests = b"".join(entry.digest(salt) for entry in entries)
    return Listing(
        paths=tuple(entry.path for entry in entries),
        digests=np.frombuffer(digests, "<u8").reshape(-1, 2),
        cut=partial(_cut, source, entries),
        read=partial(_read, source, entries, salt),
        older_fingerprint=partial(_older_fingerprint, source, entries),
    )


def _cut(source: Source, entries: Sequence[Entry], positions: Positions) -> dict[str, Positions]:
    """Cut files into runs of at most `_LARGEST` files, and of at most `_LARGEST_BYTES` where they are several."""
    if not len(positions):
        return {}
    height, width = source.size or (0, 0)
    # With the bytes of the pixels where the recipe has a size.
    weights = np.array([entries[at].size for at in positions.tolist()], np.int64) + 3 * height * width
    ends, stops = np.cumsum(weights), [0]
    while (start := stops[-1]) < len(positions):
        fitting = int(np.searchsorted(ends, ends[start] - weights[start] + _LARGEST_BYTES, "right"))
        stops.append(max(start + 1, min(start + _LARGEST, fitting)))
    runs = np.split(positions, stops[1:-1])
    return {_key(source, entries, run): run for run in runs}


def _key(source: Source, entries: Sequence[Entry], run: Positions) -> str:
    """Name a shard after the paths of its files, which no other shard ever has.

    A shard may lose files later, but gets none. So a shard of the lake with the same key has none of these files left.
    """
    paths = "\0".join([entries[at].path for at in run.tolist()])
    return shard_key(source, xxhash.xxh3_64_hexdigest(paths.encode()))


def _read(source: Source, entries: Sequence[Entry], salt: str, shards: Mapping[str, Positions]) -> Iterator[Encoded]:
    for key, positions in shards.items():
        part = [entries[at] for at in positions.tolist()]
        rejects = [_reject_of(source, entry) for entry in part]
        good = [entry for entry, reject in zip(part, rejects, strict=True) if reject is None]
        digests = np.frombuffer(b"".join(entry.digest(salt) for entry in part), "<u8").reshape(-1, 2)
        yield Encoded(
            shard=key,
            fingerprint=fingerprint_of_files(digests),
            paths=tuple(entry.path for entry in good),
            labels=tuple(entry.label for entry in good),
            contents=Files(tuple(entry.name for entry in good), b"".join(entry.state for entry in good)),
            rejects=tuple(reject for reject in rejects if reject is not None),
        )


def _older_fingerprint(source: Source, entries: Sequence[Entry], positions: Positions) -> str:
    salt = [source.size, source.max_bytes]
    return digest_of([salt, [entries[at].fingerprint_parts for at in positions.tolist()]])


def _list_files(source: Source) -> list[Entry]:
    entries = _with_export_labels(source, _select(source, _with_lakes_rejected(sorted(_walk(source)))))
    if not entries and not source.is_remainder:
        raise SourceError(f"{source.title}: the folder {source.path} holds no files. Check the path.")
    return entries


def _with_lakes_rejected(entries: list[Entry]) -> list[Entry]:
    """Reject the files of a lake inside of the source: they are no images, and their folders no classes."""
    if not any(_LOG in entry.path for entry in entries):
        return entries
    lakes = {entry.path.partition(_LOG)[0].rpartition("/")[0] for entry in entries if _LOG in entry.path}
    inside = tuple(f"{lake}/" for lake in lakes if lake)
    return [entry._replace(label=None, fault=_IN_LAKE) if entry.path.startswith(inside) else entry for entry in entries]


def _select(source: Source, entries: list[Entry]) -> list[Entry]:
    """Select the files of this source, not of other sources of its uri, and set their labels."""
    if not source.is_part:
        return entries
    kept = source.contains([entry.path for entry in entries])
    return [
        entry._replace(label=source.label_of(entry.path) if mine else None)
        for entry, mine in zip(entries, kept, strict=True)
        if mine or source.is_outside(entry.path)
    ]


def _with_export_labels(source: Source, entries: list[Entry]) -> list[Entry]:
    """Set the labels of an export, whose folders are not named like them, and drop the files that describe it."""
    named, own = class_folders(source.path), export_files(source.path)
    if not named and not own:
        return entries
    kept = [entry for entry in entries if entry.path not in own]
    return [entry._replace(label=named[entry.label]) if entry.label in named else entry for entry in kept]


class _Folder(NamedTuple):
    """A folder to list.

    Attributes:
        name: path on disk.
        prefix: prefix of the paths in it.
        inside: the folder and its parents, along the path by which it was found.
    """

    name: str
    prefix: str
    inside: frozenset[_Identity]


def _walk(source: Source) -> Iterator[Entry]:
    top = os.fspath(source.path)
    path_counts: Counter[_Identity] = Counter()
    try:
        folders = [_Folder(top, "", _parents_of(top))]
        while folders:
            folder = folders.pop()
            is_data = not system_folder(folder.prefix.rstrip("/"))
            with os.scandir(folder.name) as found:
                for entry in found:
                    path = f"{folder.prefix}{readable_name(entry.name)}"
                    below = _classify(folder, entry, path)
                    if isinstance(below, Entry):
                        yield below if is_data else below._replace(label=None)
                        continue
                    if source.can_skip(path):
                        continue
                    folders.append(below)
                    if entry.is_symlink():
                        _check_paths(source, entry, path_counts)
    except OSError as error:
        where = error.filename or top
        raise SourceError(f"{source.title}: cannot list {where} ({error.strerror}). Check the folder.") from error


def _classify(folder: _Folder, entry: os.DirEntry[str], path: str) -> Entry | _Folder:
    """Return an entry of a folder: a file, or something that cannot be opened, or a folder to list."""
    if not is_folder(entry):
        return _entry(entry, path)
    linked, identity = entry.is_symlink(), _identity(entry.stat())
    if identity in folder.inside:
        what = "a link to a folder that contains it" if linked else "a folder that contains the link to it"
        return _entry(entry, path)._replace(fault=f"{what}: not followed, it would never end")
    if linked and is_system_folder(entry.name):
        return _entry(entry, path)._replace(fault="a link with the name of a system folder: not followed")
    return _Folder(entry.path, f"{path}/", folder.inside | {identity})


def _parents_of(top: str) -> frozenset[_Identity]:
    """Return the identities of a folder and its parents: a link to one of these leads back to the folder."""
    real = Path(top).resolve()
    return frozenset(_identity(place.stat()) for place in (real, *real.parents))


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def _check_paths(source: Source, entry: os.DirEntry[str], path_counts: Counter[_Identity]) -> None:
    identity = _identity(entry.stat())
    path_counts[identity] += 1
    if path_counts[identity] > _MAX_PATHS:
        raise SourceError(
            f"{source.title}: links lead to the folder {entry.path} by more than {_MAX_PATHS} paths. Remove some of "
            "the links."
        )


def _entry(entry: os.DirEntry[str], path: str) -> Entry:
    try:
        found = entry.stat()
    except OSError:  # a link to nothing, or to itself
        found = entry.stat(follow_symlinks=False)
    return Entry(path, entry.path, found.st_size, found.st_mtime_ns, fault_of(found.st_mode), label_of(path))


def fault_of(mode: int) -> str:
    """Return why a file cannot be opened, by its mode; empty for a regular file.

    A worker that opens a pipe would wait forever.
    """
    if stat.S_ISREG(mode):
        return ""
    if stat.S_ISLNK(mode):
        return "a link that leads nowhere"
    return "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"


def _reject_of(source: Source, entry: Entry) -> Reject | None:
    size = 0 if entry.fault else entry.size
    if entry.fault == _IN_LAKE:
        return Reject(entry.path, None, "system_file", _IN_LAKE, entry.size)
    if (stray := source.outside_reject(entry.path, size)) is not None:
        return stray
    # A list names each file, so files in hidden folders are intended.
    reject = rejection(source, entry.path, size, entry.fault, listed=source.format == "list")
    return reject and reject._replace(label=entry.label)
