"""WebDataset: a tar in which the files of a sample are adjacent and share their name up to the first dot.

Each image of a sample is one row of the lake: `0001.jpg`, with `0001.cls` and `0001.json`. The other files of the
sample are no rows. Images are recognised by their ending; if the recipe's `images` names an ending ("jpg", "left.png"),
only files with this ending are images.

The label is the content of `.cls` (or `.label`, `.class`, `.target`, ...), else the value of "label", "cls", "class" or
the like in `.json`; `samples` has the order, and the rules for names with several dots. The recipe's `labels` names
another ending or key, and `labels = ""` reads no labels.

Without any of these, a `.txt` may be the label. The first files of the archive decide: if each `.txt` is one word, they
are labels; if one has six words or more, they are captions, which are not read. In other cases the recipe has to set
`labels = "txt"` or `labels = ""`.

Rejects are: an image whose label cannot be read, every file of a sample without an image, and a file with a label that
no image takes.

In a tar from `imagelake export`, `.cls` files contain numbers, and the first member names the classes (see `exported`).
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
from pipeline.shard import Blobs, Encoded, Reject, Survey
from pipeline.sources.archives import tar as archive
from pipeline.sources.archives.archive import ReadProgress, select_members, with_archive_errors
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
    separable_files,
    text_kind,
)
from pipeline.sources.archives.tar import first_members, tar_members
from pipeline.sources.exported import with_class_names
from pipeline.sources.source import (
    BYTES_PER_SHARD,
    IMAGES_PER_SHARD,
    Source,
    files_fingerprint,
    is_picture_name,
    shard_key,
    system_file,
)

# Most files of a sample. With more files, the names do not follow the WebDataset format.
_MAX_FILES = 1_000
# To recognise the form: number of files that are read, bytes after which no file is read, largest label file.
_PEEK_FILES = 16
_PEEK_BYTES = 64 * 2**20
_PEEK_FILE_BYTES = 2**16


class _Row(NamedTuple):
    """An image of a sample, or a reject."""

    path: str
    label: str | None
    data: bytes
    reject: Reject | None = None


class _TextFiles:
    """The meaning of the `.txt` files of an archive.

    Args:
        source: a WebDataset.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    @cached_property
    def kind(self) -> TextKind:
        """Labels or captions, from the first files of the archive.

        Raises:
            SourceError: they may be labels or captions, and there is no other label.
        """
        texts: list[str] = []
        labelled = False
        for pictures, carriers in (
            _pictures_and_carriers(None, None, sample) for sample in _first_samples(self._source.path)
        ):
            beside = [carrier.member.data for carrier in carriers if carrier.kind == "text" and pictures]
            texts += [data.decode("utf-8", "replace") for data in beside]
            labelled |= has_label(pictures, [carrier for carrier in carriers if carrier.kind != "text"])
        kind = text_kind(texts)
        if kind == "unclear" and not labelled:
            raise SourceError(
                f"{self._source.title}: the pictures of {self._source.path} have a .txt, which may be a label or a "
                'caption, and no .cls. Set labels = "txt" in the recipe to read it as the label, or labels = "" for '
                "no labels."
            )
        return kind


def recognises(path: Path, head: bytes) -> bool:
    """Recognise a tar whose first files are images with label files of the same name; see `pipeline.sources`."""
    if path.is_dir() or not head:
        return False
    return any(has_label(*_pictures_and_carriers(None, None, sample)) for sample in _first_samples(path))


def splits_within(source: Source) -> dict[str, tuple[str, ...]]:
    """Find the folders of each split; see `pipeline.sources.forms`."""
    return archive.splits_within(source)


def survey(source: Source) -> Survey:
    """Fingerprint the archive by size and time; see `pipeline.sources`."""
    return Survey(digest_of([files_fingerprint(source, source.path), source.part.images, source.part.labels]))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Read the archive as a stream and cut it into shards; see `pipeline.sources`."""
    fingerprint = survey(source).fingerprint
    progress = ReadProgress()
    number = 0
    for number, batch in enumerate(_batches(source, progress), start=1):
        key = shard_key(source, number - 1)
        if wanted is None or key in wanted:
            good = [row for row in batch if row.reject is None]
            yield Encoded(
                shard=key,
                fingerprint=fingerprint,
                paths=tuple(row.path for row in good),
                labels=tuple(row.label for row in good),
                contents=Blobs(tuple(row.data for row in good)),
                rejects=tuple(row.reject for row in batch if row.reject is not None),
                done=progress.done,
            )
    if not number and not source.is_remainder:
        raise SourceError(f"{source.title}: the archive {source.path} holds no files. Check that it is the right one.")


def _batches(source: Source, progress: ReadProgress) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    room = BYTES_PER_SHARD
    texts = _TextFiles(source)
    for sample in _samples(source, progress):
        for row in _rows(source, sample, texts):
            batch.append(row)
            room -= len(row.data)
            if len(batch) == IMAGES_PER_SHARD or room <= 0:
                yield batch
                batch, room = [], BYTES_PER_SHARD
    if batch:
        yield batch


def _samples(source: Source, progress: ReadProgress) -> Iterator[list[Member]]:
    """Group adjacent files by sample; system files between them are ignored."""
    images, labels = source.part.images, source.part.labels
    sample: list[Member] = []
    for member in with_class_names(_members(source, progress)):
        if member.reject is not None and member.reject.reason == "system_file":
            yield [member]
            continue
        # The reject for the lost end of an archive stays with the last sample: its label may be lost.
        if sample and member.key != sample[0].key and not _is_cut_short(member):
            yield sample
            sample = []
        sample.append(member if _is_needed(images, labels, member) else member._replace(data=b""))
        if len(sample) > _MAX_FILES:
            count = separable_files(labels, sample, _pictures_and_carriers(images, labels, sample)[0])
            if not count:
                raise SourceError(
                    f"{source.title}: more than {_MAX_FILES} files of {source.path} share the name "
                    f"{member.key} up to its first dot, and not every image has its own label. If it is "
                    'not a WebDataset, set format = "tar".'
                )
            yield sample[:count]
            sample = sample[count:]
    if sample:
        yield sample


def _members(source: Source, progress: ReadProgress) -> Iterator[Member]:
    for found in select_members(
        source, with_archive_errors(source, tar_members(source, progress=progress, links=False))
    ):
        if isinstance(found, Reject):
            yield member_of(found.path, b"", found.file_size, found)
        else:
            yield from map(member_of, found.paths, found.data, found.sizes)


def _rows(source: Source, sample: Sequence[Member], texts: _TextFiles) -> Iterator[_Row]:
    labels = source.part.labels
    pictures, carriers = _pictures_and_carriers(source.part.images, labels, sample)
    if not pictures:
        for member in sample:
            alone = Reject(member.path, None, "not_an_image", "no picture has its name", member.size)
            yield _Row(member.path, None, b"", member.reject._replace(label=None) if member.reject else alone)
        return
    found, lost = labels_in(labels, pictures, carriers, lambda: texts.kind)
    cut = [member for member in sample if _is_cut_short(member)]
    for picture, label, fault in found:
        reject = picture.reject
        if reject is None and fault:
            reject = Reject(picture.path, None, "bad_row", fault, picture.size)
        elif reject is None and label is None and cut and labels != "":
            detail = "the archive is cut short behind it: its label may be lost"
            reject = Reject(picture.path, None, "truncated", detail, picture.size)
        yield _Row(picture.path, label, picture.data, reject and reject._replace(label=label))
    shown = set(map(id, pictures))
    for member, why in lost:
        if id(member) not in shown:
            yield _Row(member.path, None, b"", Reject(member.path, None, "bad_row", why, member.size))
    for member in cut:
        if id(member) not in shown and member.reject:
            yield _Row(member.path, None, b"", member.reject._replace(label=None))


def _pictures_and_carriers(
    images: str | None, labels: str | None, sample: Sequence[Member]
) -> tuple[list[Member], list[Carrier]]:
    """Find the images of a sample, and its files that may hold a label."""
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


def _is_cut_short(member: Member) -> bool:
    return member.reject is not None and member.reject.reason == "truncated"


def _first_samples(path: Path) -> list[list[Member]]:
    """Read the first files of a tar, by sample, with the content of small files."""
    return [list(sample) for _, sample in groupby(_first_files(path), key=attrgetter("key"))]


def _first_files(path: Path) -> Iterator[Member]:
    for name, size, data in islice(first_members(path, _PEEK_BYTES, _PEEK_FILE_BYTES), _PEEK_FILES):
        member = member_of(name, data, size)
        if member.ending and not system_file(name):
            yield member
