"""Read images from sources: from a uri to shards of encoded images.

Every form of source is a module with three functions (see `forms`):

- `recognises(path, head) -> bool` returns whether a file or folder is of this form;
- `survey(source) -> Survey` fingerprints the source without opening an image;
- `read(source, wanted=None) -> Iterator[Encoded]` yields its shards in order: all, or those whose key is in `wanted`.

`survey` and `read` depend only on the content of the source, not on the order in which files are listed.
"""

import hashlib
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from pipeline.errors import CheckError
from pipeline.hashing import digest_of
from pipeline.shard import Encoded, Listing, Positions, Survey
from pipeline.sources.detect import detect, is_fetched, resolve
from pipeline.sources.forms import FORMS, module_of
from pipeline.sources.labels import with_normal_labels
from pipeline.sources.remote import lacking_error, lacks_secrets
from pipeline.sources.source import Source

__all__ = [
    "Source",
    "check_classes",
    "check_file",
    "detect",
    "is_fetched",
    "lacking_error",
    "lacks_secrets",
    "read",
    "read_listed",
    "resolve",
    "survey",
]


def survey(source: Source) -> Survey:
    """Fingerprint a source and its shards, without opening an image."""
    found = module_of(source.format).survey(source)
    version = FORMS[source.format].version
    if version == 1:
        return found
    shards = found.shards and {key: _versioned(mark, version) for key, mark in found.shards.items()}
    return replace(found, fingerprint=_versioned(found.fingerprint, version), shards=shards)


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Yield the shards of a source in order, with the source's prefix on paths and normalised labels.

    Args:
        source: a resolved source.
        wanted: keys of the shards to yield; None for all.

    Raises:
        SourceError: the source is damaged or empty, or has another form.
    """
    version = FORMS[source.format].version
    for shard in module_of(source.format).read(source, wanted):
        mark = shard.fingerprint if version == 1 else _versioned(shard.fingerprint, version)
        yield _completed(source, replace(shard, fingerprint=mark))


def read_listed(source: Source, files: Listing, shards: Mapping[str, Positions]) -> Iterator[Encoded]:
    """Yield shards of listed files, as `read` does.

    Args:
        source: a resolved source that lists files.
        files: its files.
        shards: by key of the shard, the positions of its files.
    """
    return (_completed(source, shard) for shard in files.read(shards))


def _completed(source: Source, shard: Encoded) -> Encoded:
    return with_normal_labels(_with_prefix(shard, source.prefix))


def _versioned(fingerprint: str, version: int) -> str:
    """Change a fingerprint with the version of its form: a new version reads the source again."""
    return digest_of([fingerprint, version])


def _with_prefix(shard: Encoded, prefix: str) -> Encoded:
    if not prefix:
        return shard
    rejects = tuple(item._replace(path=f"{prefix}{item.path}") for item in shard.rejects)
    return replace(shard, paths=tuple(f"{prefix}{path}" for path in shard.paths), rejects=rejects)


def check_file(source: Source) -> None:
    """Check the size and digest of a source's file against the recipe.

    Raises:
        CheckError: they differ, or the source is not one file.
    """
    part = source.part
    if part.bytes is None and part.digest is None:
        return
    if not source.path.is_file():
        raise CheckError(
            f"{source.title}: bytes and digest can only be checked for a single file. Remove them from the recipe."
        )
    size = source.path.stat().st_size
    if part.bytes not in (None, size):
        raise CheckError(f"{source.title}: {source.path} has {size} bytes, the recipe asks for {part.bytes}.")
    if part.digest is not None:
        kind, wanted = part.digest.split(":")
        with source.path.open("rb") as stream:
            found = hashlib.file_digest(stream, kind).hexdigest()
        if found != wanted:
            raise CheckError(f"{source.title}: {source.path} has {kind}:{found}, the recipe asks for {part.digest}.")


def check_classes(source: Source, counts: Mapping[str | None, int]) -> None:
    """Check the number of classes and of images per class against the recipe.

    Args:
        source: a resolved source; any one of the files of a pattern.
        counts: readable images by label, of all files of the recipe's uri; None for images without a label. A class
            without a readable image has too few images, but is not counted as a class.

    Raises:
        CheckError: there are more or fewer classes, or a class has too few images.
    """
    part = source.part
    title = f"{source.dataset}/{source.split} ({source.group or source.uri})"
    named = {label: count for label, count in counts.items() if label is not None}
    present = sorted(label for label, count in named.items() if count)
    if part.classes is not None and len(present) != part.classes:
        listed = ", ".join(present) or "none"
        raise CheckError(f"{title}: {len(present)} classes ({listed}), the recipe asks for {part.classes}.")
    if part.min_per_class is None:
        return
    short = [f"{label} has {count}" for label, count in sorted(named.items()) if count < part.min_per_class]
    if short or not named:
        listed = ", ".join(short) or "no image has a label: 0"
        raise CheckError(f"{title}: {listed} images; the recipe asks for at least {part.min_per_class} a class.")
