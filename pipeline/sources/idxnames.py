"""The names of IDX files: which hold images, which labels, and which of them belong together.

Names are read word by word, in any case: `train-images-idx3-ubyte`, `train-images.idx3-ubyte.gz`, `train_images.idx3`,
`t10k-images.gz` and `x_train.idx` are images. Their labels have the same name but for `labels` or `y` in the place of
that word, and for the words of the format: `qmnist-train-labels-idx2-int` belongs to `qmnist-train-images-idx3-ubyte`.

Kaggle unpacks a file `NAME` as `NAME/NAME`: such a file counts as if it lay in the folder above.
"""

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from pipeline.sources.idxformat import HEAD
from pipeline.sources.source import beginning, is_picture_name

_IMAGES = frozenset(["images", "image", "imgs", "img", "pictures", "x"])
_LABELS = frozenset(["labels", "label", "lbls", "targets", "target", "y"])
_FORMAT = re.compile(r"idx\d?|u?byte|uint8|int8|short|int|float|double")
# A name that says its format is believed; of any other the first bytes must be an IDX file's.
_SURE = re.compile(r"images[-._]?idx[34]|labels[-._]?idx[12]", re.IGNORECASE)
_PACKED = (".gz", ".xz", ".bz2")
_ROLES = ("train", "training", "t10k", "test", "testing", "valid", "val", "validation")
# Files of a folder that are looked into for labels that no name tells.
_MOST_LOOKED_INTO = 1_000


def words_of(file: Path) -> list[str]:
    """Cut a file's name into its words, without the ending of its compression."""
    return [word for word in re.split(r"[-_. ]+", unpacked_name(file).lower()) if word]


def unpacked_name(file: Path) -> str:
    """Name a file without the ending of its compression."""
    ending = file.suffix.lower()
    return file.name[: -len(ending)] if ending in _PACKED else file.name


def images_in(folder: Path) -> list[Path]:
    """Find the images files of a folder, by name; one file packed and unpacked is one file.

    Raises:
        OSError: the folder cannot be listed.
    """
    return _found(folder, _IMAGES, b"\3\4")


def labels_of(file: Path) -> list[Path]:
    """Find the labels files that belong to an images file: files whose names differ only in their format are several.

    Raises:
        OSError: the folder cannot be listed.
    """
    found = (
        [labels for labels in _found(folder, _LABELS, b"\1\2\3") if _key(labels) == _key(file)]
        for folder in _folders_of(file)
    )
    return next(filter(None, found), [])


def other_labels(file: Path) -> list[Path]:
    """Find what may be the labels of an images file for which `labels_of` finds none.

    Returns:
        Files beside it that are called labels and belong to no other images file, in any format, and IDX files of
        labels with any name.

    Raises:
        OSError: the folder cannot be listed.
    """
    return [other for folder in _folders_of(file) for other in _others(folder, file)]


def _others(folder: Path, file: Path) -> list[Path]:
    taken = {_key(images) for images in images_in(folder)} - {_key(file)}
    files = sorted(other for other in folder.iterdir() if not is_picture_name(other.name) and other.is_file())
    named = [other for other in files if _LABELS.intersection(words_of(other)) and _key(other) not in taken]
    plain = (other for other in files if not _LABELS.intersection(words_of(other)) and other != file)
    return named or [other for other in islice(plain, _MOST_LOOKED_INTO) if _is_idx(other, b"\1\2")]


def _folders_of(file: Path) -> list[Path]:
    """List the folders in which the files that belong to one may lie: for `NAME/NAME` also the one above."""
    return [file.parent, *([file.parent.parent] if file.parent.name == file.name else [])]


def _found(folder: Path, kinds: frozenset[str], ranks: bytes) -> list[Path]:
    files: dict[str, Path] = {}
    nested: dict[str, Path] = {}
    usable = [
        entry for entry in folder.iterdir() if not is_picture_name(entry.name) and _may_be(words_of(entry), kinds)
    ]
    # A file that is not packed comes before the same file packed.
    for entry in sorted(usable, key=lambda entry: (unpacked_name(entry), len(entry.name))):
        inside = entry.is_dir()
        file = entry / entry.name if inside else entry
        if file.is_file() and (_SURE.search(file.name) or _is_idx(file, ranks)):
            (nested if inside else files).setdefault(unpacked_name(entry), file)
    there = {tuple(words_of(file)) for file in files.values()}
    files |= {name: file for name, file in nested.items() if tuple(words_of(file)) not in there}
    return [files[name] for name in sorted(files)]


def _may_be(words: list[str], kinds: Iterable[str]) -> bool:
    """Tell by words whether a file may hold images or labels: one says so, and the last is none of another format."""
    last = words[-1:]
    return not set(words).isdisjoint(kinds) and any(
        word in _IMAGES or word in _LABELS or word in _ROLES or _FORMAT.fullmatch(word) for word in last
    )


def _key(file: Path) -> tuple[str, ...]:
    """Tell what the names of images and their labels share."""
    return tuple(word for word in words_of(file) if word not in _IMAGES | _LABELS and not _FORMAT.fullmatch(word))


def _is_idx(file: Path, ranks: bytes) -> bool:
    try:
        head = beginning(file, 4)
    except OSError:
        return False
    return HEAD.match(head) is not None and head[3] in ranks
