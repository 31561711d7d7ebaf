"""A folder of class folders: listed and fingerprinted without opening a file.

Shards are cut where a file's own name says so (content-defined chunking), so a file more or less changes one shard and
leaves the others as they are, whatever the order of the listing.
"""

import os
from collections.abc import Iterator, Set
from itertools import pairwise

import numpy as np
import xxhash

from pipeline.encoded import Encoded, Files, Refused, Survey
from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.sources.source import Source, label_of, readable_name, shard_key

# A cut on average every 2,048 files, and never more than 4,096 without one: below 1 % of half a million.
_CUT_EVERY = 2_048
_LARGEST = 4_096

_Entry = tuple[str, str, int, int]  # readable path, name on disk, size, modification time


def survey(source: Source) -> Survey:
    """List the folder; see `pipeline.sources`."""
    shards = {key: digest for key, digest, _ in _shards(source)}
    return Survey(digest_of(shards), shards)


def read(source: Source, wanted: Set[str] | None = None) -> Iterator[Encoded]:
    """Hand out the wanted shards by file name; see `pipeline.sources`."""
    for key, digest, entries in _shards(source):
        if wanted is None or key in wanted:
            small = [entry for entry in entries if entry[2] <= source.max_bytes]
            yield Encoded(
                shard=key,
                fingerprint=digest,
                paths=tuple(path for path, *_ in small),
                labels=tuple(label_of(path) for path, *_ in small),
                contents=Files(tuple(name for _, name, *_ in small)),
                refused=tuple(_too_large(source, entry) for entry in entries if entry[2] > source.max_bytes),
            )


def _shards(source: Source) -> Iterator[tuple[str, str, list[_Entry]]]:
    entries = sorted(_walk(source, os.fspath(source.path), ""))
    if not entries:
        raise SourceError(f"{source.title}: the folder {source.path} holds no files. Check the path.")
    salt = [source.size, source.max_bytes]
    names = ["start", *(xxhash.xxh3_64_hexdigest(entry[0].encode()) for entry in entries)]
    cuts = _cuts(names[1:])
    for start, stop in pairwise([0, *cuts]):
        part = entries[start:stop]
        # Named for the file in front of it, which belongs to the shard before: a change inside never renames a shard.
        yield shard_key(source, names[start]), digest_of([salt, [(e[0], e[2], e[3]) for e in part]]), part


def _cuts(digests: list[str]) -> list[int]:
    """Positions to cut behind: wherever a digest says so, and in between where a shard would grow too large."""
    words = np.array([int(digest, 16) for digest in digests], dtype=np.uint64)
    natural = np.flatnonzero(words % np.uint64(_CUT_EVERY) == 0) + 1
    bounds = np.unique(np.concatenate([[0], natural, [len(digests)]]))
    forced = [np.arange(a + _LARGEST, b, _LARGEST) for a, b in pairwise(bounds.tolist()) if b - a > _LARGEST]
    return [int(cut) for cut in np.unique(np.concatenate([bounds[1:], *forced]))]


def _walk(source: Source, folder: str, prefix: str) -> Iterator[_Entry]:
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError as error:
        raise SourceError(f"{source.title}: cannot list {folder} ({error.strerror}). Check its permissions.") from error
    for entry in entries:
        path = f"{prefix}{readable_name(entry.name)}"
        # Links to folders are not followed: a loop would never end, and the files have a path of their own.
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(source, entry.path, f"{path}/")
        elif not (entry.is_symlink() and entry.is_dir()):
            stat = entry.stat() if entry.is_file() else entry.stat(follow_symlinks=False)
            yield path, entry.path, stat.st_size, stat.st_mtime_ns


def _too_large(source: Source, entry: _Entry) -> Refused:
    path, _, size, _ = entry
    detail = f"{size} bytes, more than decode.max_bytes = {source.max_bytes}"
    return Refused(path, label_of(path), "too_large", detail, size)
