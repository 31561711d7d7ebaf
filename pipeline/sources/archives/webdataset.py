"""WebDataset: tars in which the files of a sample lie together and share a name up to its first dot.

A sample is one row of the lake for each of its pictures: `0001.jpg`, `0001.cls`, `0001.json`. Its other files belong to
these rows and are none of their own. Pictures are told by the ending, or, where the recipe's `images` names an ending
("jpg", "left.png"), only those that have it.

The label is what `.cls` (or `.label`, `.class`, `.target`, ...) says, or else "label", "cls", "class" or the like of
`.json`; `samples` has the order, and what names with several dots mean. The recipe's `labels` names another ending or
another key, and `labels = ""` none.

Where a picture has none of these, a `.txt` counts. The first files of the archive tell what it is: where each `.txt` is
one word they are labels, where one has six words or more they are captions, which are not read. Where neither holds the
recipe has to say `labels = "txt"` or `labels = ""`.

A picture whose label cannot be read is a reject; so is every file of a sample without a picture, and a file with a
label that is that of no picture.

In a tar that `imagelake export` wrote, `.cls` files hold numbers, and a member in front of them names the classes (see
`exported`).
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property, lru_cache
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.shard import Blobs, Encoded, Refused, Survey
from pipeline.sources.archives import tar as archive
from pipeline.sources.archives.members import Reading, first_members, of_source, tar_members
from pipeline.sources.archives.samples import (
    Carrier,
    Member,
    TextKind,
    carriers_of,
    has_label,
    labels_in,
    may_hold_label,
    member_of,
    pictures_of,
    text_kind,
    whole_samples,
)
from pipeline.sources.archives.tar import guarded
from pipeline.sources.exported import with_class_names
from pipeline.sources.source import (
    BYTES_PER_SHARD,
    IMAGES_PER_SHARD,
    Source,
    files_fingerprint,
    is_picture_name,
    shard_key,
)
from pipeline.sources.system_files import system_file

# A sample has a handful of files: with more, names are not meant as WebDataset means them.
_MOST = 1_000
# To tell the form, so many files are looked at, none that begins behind so many bytes, and no label that is larger.
_PEEK = 16
_FARTHEST_PEEK = 64 * 2**20
_LARGEST_PEEK = 2**16


class _Row(NamedTuple):
    """A picture of a sample, or a file that is a row of the rejects."""

    path: str
    label: str | None
    data: bytes
    refused: Refused | None = None


class _Texts:
    """What the `.txt` files of an archive are.

    Args:
        source: a WebDataset.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    @cached_property
    def kind(self) -> TextKind:
        """Look into the first files of the archive.

        Raises:
            SourceError: they may be labels or captions, and nothing else there is a label.
        """
        texts: list[str] = []
        labelled = False
        for pictures, carriers in (_parts(None, None, sample) for sample in _peeked(self._source.path)):
            beside = [carrier.member.data for carrier in carriers if carrier.kind == "text" and pictures]
            texts += [data.decode("utf-8", "replace") for data in beside]
            labelled |= has_label(pictures, [carrier for carrier in carriers if carrier.kind != "text"])
        kind = text_kind(texts)
        if kind == "unclear" and not labelled:
            raise SourceError(
                f"{self._source.title}: the pictures of {self._source.path} have a .txt, which may be a label or a "
                'caption, and no .cls. Say labels = "txt" in the recipe to read it as the label, or labels = "" for '
                "no labels."
            )
        return kind


def recognises(path: Path, head: bytes) -> bool:
    """Tell a tar whose first files are pictures with a `.cls`, or another file that holds a label, of the same name."""
    if path.is_dir() or not head:
        return False
    return any(has_label(*_parts(None, None, sample)) for sample in _peeked(path))


def splits_within(source: Source) -> dict[str, tuple[str, ...]]:
    """Tell which folders belong to which split; see `pipeline.sources.forms`."""
    return archive.splits_within(source)


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
    if not number and not source.rest:
        raise SourceError(f"{source.title}: the archive {source.path} holds no files. Check that it is the right one.")


def _batches(source: Source, reading: Reading) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    room = BYTES_PER_SHARD
    texts = _Texts(source)
    for sample in _samples(source, reading):
        for row in _rows(source, sample, texts):
            batch.append(row)
            room -= len(row.data)
            if len(batch) == IMAGES_PER_SHARD or room <= 0:
                yield batch
                batch, room = [], BYTES_PER_SHARD
    if batch:
        yield batch


def _samples(source: Source, reading: Reading) -> Iterator[list[Member]]:
    """Gather what lies together under one name; what an operating system left in between parts nothing."""
    images, labels = source.part.images, source.part.labels
    sample: list[Member] = []
    for member in with_class_names(_members(source, reading)):
        if member.refused is not None and member.refused.reason == "system_file":
            yield [member]
            continue
        # The mark of a cut archive stays with the last sample, which may have lost its label there.
        if sample and member.key != sample[0].key and not _is_cut(member):
            yield sample
            sample = []
        sample.append(member if _is_needed(images, labels, member) else member._replace(data=b""))
        if len(sample) > _MOST:
            whole = whole_samples(labels, sample, _parts(images, labels, sample)[0])
            if not whole:
                raise SourceError(
                    f"{source.title}: more than {_MOST} files of {source.path} share the name "
                    f"{member.key} up to its first dot, and not each picture has a label of its own. If it is "
                    'no WebDataset, say format = "tar".'
                )
            yield sample[:whole]
            sample = sample[whole:]
    if sample:
        yield sample


def _members(source: Source, reading: Reading) -> Iterator[Member]:
    for found in of_source(source, guarded(source, tar_members(source, reading=reading, links=False))):
        if isinstance(found, Refused):
            yield member_of(found.path, b"", found.file_size, found)
        else:
            yield from map(member_of, found.paths, found.data, found.sizes)


def _rows(source: Source, sample: Sequence[Member], texts: _Texts) -> Iterator[_Row]:
    labels = source.part.labels
    pictures, carriers = _parts(source.part.images, labels, sample)
    if not pictures:
        for member in sample:
            alone = Refused(member.path, None, "not_an_image", "no picture has its name", member.size)
            yield _Row(member.path, None, b"", member.refused._replace(label=None) if member.refused else alone)
        return
    found, lost = labels_in(labels, pictures, carriers, lambda: texts.kind)
    cut = [member for member in sample if _is_cut(member)]
    for picture, label, fault in found:
        refused = picture.refused
        if refused is None and fault:
            refused = Refused(picture.path, None, "bad_row", fault, picture.size)
        elif refused is None and label is None and cut and labels != "":
            detail = "the archive is cut short behind it: its label may be lost"
            refused = Refused(picture.path, None, "truncated", detail, picture.size)
        yield _Row(picture.path, label, picture.data, refused and refused._replace(label=label))
    shown = set(map(id, pictures))
    for member, why in lost:
        if id(member) not in shown:
            yield _Row(member.path, None, b"", Refused(member.path, None, "bad_row", why, member.size))
    for member in cut:
        if id(member) not in shown and member.refused:
            yield _Row(member.path, None, b"", member.refused._replace(label=None))


def _parts(images: str | None, labels: str | None, sample: Sequence[Member]) -> tuple[list[Member], list[Carrier]]:
    """Find the pictures of a sample, and its files that may hold a label."""
    pictures = [member for member in sample if _may_be_picture(images, member)]
    carriers = carriers_of(labels, sample, pictures)
    if images:
        pictures = pictures_of(images, pictures, {carrier.stem for carrier in carriers})
    return pictures, carriers


def _may_be_picture(images: str | None, member: Member) -> bool:
    if images:
        return f".{member.ending}".endswith(f".{images.lower().removeprefix('.')}")
    return _is_picture(member.ending)


@lru_cache(2**12)
def _is_picture(ending: str) -> bool:
    return bool(ending) and is_picture_name(ending)


def _is_needed(images: str | None, labels: str | None, member: Member) -> bool:
    return _may_be_picture(images, member) or may_hold_label(labels, member)


def _is_cut(member: Member) -> bool:
    return member.refused is not None and member.refused.reason == "truncated"


def _peeked(path: Path) -> list[list[Member]]:
    """Read the first files of a tar, sample by sample, and what is in those that may hold a label."""
    return [list(sample) for _, sample in groupby(_peek(path), key=attrgetter("key"))]


def _peek(path: Path) -> Iterator[Member]:
    for name, size, data in islice(first_members(path, _FARTHEST_PEEK, _LARGEST_PEEK), _PEEK):
        member = member_of(name, data, size)
        if member.ending and not system_file(name):
            yield member
