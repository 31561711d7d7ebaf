"""WebDataset: tars in which the files of a sample lie together and share a name up to its first dot.

A sample is one row of the lake for each of its pictures: `0001.jpg`, `0001.cls`, `0001.json`. Its other files belong to
these rows and are none of their own. Pictures are told by the ending, or, where the recipe's `images` names an ending
("jpg", "left.png"), only those that have it.

The label is what `.cls` says, or else "label", "cls" or "class" of `.json`; the recipe's `labels` names another ending
or another key, and `labels = ""` none. A `.txt` is a caption, and a label only where `labels` says so. A picture whose
label cannot be read is a reject; so is every file of a sample without a picture.
"""

import io
import tarfile
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

from pipeline.encoded import Blobs, Encoded, Refused, Survey
from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.sources.archive import BROKEN, guarded
from pipeline.sources.members import Reading, clean_path, tar_members
from pipeline.sources.samples import CLASS, JSON, Member, ending_of, has_label, key_of, label_in
from pipeline.sources.source import (
    BYTES_PER_SHARD,
    IMAGES_PER_SHARD,
    Source,
    beginning,
    files_fingerprint,
    is_picture_name,
    readable_name,
    shard_key,
)

# A sample has a handful of files: with more, names are not meant as WebDataset means them.
_MOST = 1_000
# To tell the form, so many files are looked at, and no label that is larger.
_PEEK = 16
_HEAD = 4 * 2**20
_LARGEST_PEEK = 2**16


class _Row(NamedTuple):
    """A picture of a sample, or a file that is a row of the rejects."""

    path: str
    label: str | None
    data: bytes
    refused: Refused | None = None


def recognises(path: Path, head: bytes) -> bool:
    """Tell a tar whose first files are pictures with a `.cls`, or a `.json` that holds a label, of the same name."""
    if path.is_dir() or not head:
        return False
    try:
        return any(_tells(list(sample)) for _, sample in groupby(_peek(path), key=lambda member: key_of(member.path)))
    except BROKEN:
        return False


def survey(source: Source) -> Survey:
    """Fingerprint the archive by size and time; see `pipeline.sources`."""
    return Survey(digest_of([files_fingerprint(source, source.path), source.part.images, source.part.labels]))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Cut the archive into shards while it streams past; see `pipeline.sources`."""
    fingerprint = survey(source).fingerprint
    reading = Reading()
    number = 0
    for number, batch in enumerate(_batches(source, reading), start=1):
        key = shard_key(source, number - 1)
        if wanted is None or key in wanted:
            good = [row for row in batch if row.refused is None]
            yield Encoded(
                shard=key,
                fingerprint=fingerprint,
                paths=tuple(row.path for row in good),
                labels=tuple(row.label for row in good),
                contents=Blobs(tuple(row.data for row in good)),
                refused=tuple(row.refused for row in batch if row.refused is not None),
                done=reading.done,
            )
    if not number:
        raise SourceError(f"{source.title}: the archive {source.path} holds no files. Check that it is the right one.")


def _batches(source: Source, reading: Reading) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    room = BYTES_PER_SHARD
    for sample in _samples(source, reading):
        for row in _rows(source, sample):
            batch.append(row)
            room -= len(row.data)
            if len(batch) == IMAGES_PER_SHARD or room <= 0:
                yield batch
                batch, room = [], BYTES_PER_SHARD
    if batch:
        yield batch


def _samples(source: Source, reading: Reading) -> Iterator[list[Member]]:
    """Gather what lies together under one name; what an operating system left in between parts nothing."""
    sample: list[Member] = []
    for member in _members(source, reading):
        if member.refused is not None and member.refused.reason == "system_file":
            yield [member]
            continue
        # The mark of a cut archive stays with the last sample, which may have lost its label there.
        if sample and key_of(member.path) != key_of(sample[0].path) and not _is_cut(member):
            yield sample
            sample = []
        sample.append(member if _is_needed(source, member.path) else member._replace(data=b""))
        if len(sample) > _MOST:
            raise SourceError(
                f"{source.title}: more than {_MOST} files of {source.path} share the name {key_of(member.path)} up to "
                'its first dot, as only those of one sample do in a WebDataset. It is none: say format = "tar".'
            )
    if sample:
        yield sample


def _members(source: Source, reading: Reading) -> Iterator[Member]:
    for found in guarded(source, tar_members(source, reading=reading)):
        if isinstance(found, Refused):
            yield Member(found.path, b"", found.file_size, found)
        else:
            yield from map(Member, found.paths, found.data, found.sizes)


def _rows(source: Source, sample: Sequence[Member]) -> Iterator[_Row]:
    pictures = [member for member in sample if _is_picture(source, member.path)]
    label, fault = _judged(source, sample) if pictures else (None, None)
    for member in pictures:
        refused = member.refused or (fault and Refused(member.path, None, *fault, member.size))
        yield _Row(member.path, label, member.data, refused and refused._replace(label=label))
    others = [member for member in sample if member not in pictures]
    for member in others if not pictures else filter(_is_cut, others):
        alone = Refused(member.path, None, "not_an_image", "no picture has its name", member.size)
        yield _Row(member.path, None, b"", member.refused._replace(label=None) if member.refused else alone)


def _judged(source: Source, sample: Sequence[Member]) -> tuple[str | None, tuple[str, str] | None]:
    """Read a sample's label, or tell why its pictures are turned away: a reason code and what is wrong."""
    try:
        label = label_in(source.part.labels, sample)
    except ValueError as error:
        return None, ("bad_row", str(error))
    if label is None and source.part.labels != "" and any(map(_is_cut, sample)):
        return None, ("truncated", "the archive is cut short behind it: its label may be lost")
    return label, None


def _is_picture(source: Source, path: str) -> bool:
    ending = ending_of(path)
    asked = source.part.images
    return ending == asked.lower().removeprefix(".") if asked else bool(ending) and is_picture_name(ending)


def _is_needed(source: Source, path: str) -> bool:
    return _is_picture(source, path) or ending_of(path) in ((source.part.labels or CLASS).lower(), JSON)


def _is_cut(member: Member) -> bool:
    return member.refused is not None and member.refused.reason == "truncated"


def _tells(sample: Sequence[Member]) -> bool:
    return any(is_picture_name(ending_of(member.path)) for member in sample) and has_label(sample)


def _peek(path: Path) -> Iterator[Member]:
    """Read the first files of a tar, and what is in those that may hold a label."""
    head = io.BytesIO(beginning(path, _HEAD))
    with tarfile.open(fileobj=head, mode="r:", errors="surrogateescape") as archive:
        for info in islice(filter(tarfile.TarInfo.isreg, archive), _PEEK):
            name = clean_path(readable_name(info.name))
            if not ending_of(name):  # left by an operating system, most likely
                continue
            small = ending_of(name) == JSON and info.size <= _LARGEST_PEEK
            content = archive.extractfile(info) if small else None
            yield Member(name, content.read() if content else b"{}", info.size)
