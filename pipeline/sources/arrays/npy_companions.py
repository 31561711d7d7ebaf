"""Find the files in the folder of a .npy that belong to its images: labels, class names, and the rest of an export.

`train_labels.npy` or `y_train.npy` has the labels of `train_images.npy` or `x_train.npy`: it is called like labels, and
the split and the other words of the two names agree. Labels without a split in their name come next. In a folder
without other arrays, `labels.npy` has the labels of `digits.npy`. Class names are in `classes.npy`, `label_names.npy`
and the like (see `array_selection.choose_class_names`).
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import SourceError
from pipeline.sources.arrays.array_selection import (
    IMAGE_WORDS,
    split_and_other_words,
    subject_of_class_names,
    subject_of_labels,
)
from pipeline.sources.source import Source

_NPY = re.compile(r"\.npy(\.(gz|bz2|xz))?$", re.IGNORECASE)
_NPZ = ".npz"
# Other kinds of files that may hold the labels of an array. They are reported, not read.
_UNREAD_ENDINGS = (".csv", ".tsv", ".txt", ".json", ".mat", ".parquet", ".pkl", ".pickle", ".pt", ".h5")
# An export has these files with every ROLE_images.npy.
_EXPORT_IMAGES = "_images.npy"
_EXPORT_COMPANIONS = ("_labels.npy", "_ids.npy", "_index.parquet")


class Companions(NamedTuple):
    """The files that belong to an array of images.

    Attributes:
        labels: arrays that are called like its labels.
        unread: files that are called like its labels but cannot be read, such as `labels.csv`.
        class_names: arrays that are called like names of classes.
    """

    labels: list[Path]
    unread: list[Path]
    class_names: list[Path]


def find_companions(source: Source) -> Companions:
    """Find the files that belong to the images of a .npy, by their names.

    Raises:
        SourceError: the folder cannot be listed.
    """
    split, words = split_and_other_words(_stem(source.path.name))
    subject = "_".join(word for word in words.split("_") if word not in IMAGE_WORDS)
    names = _names_in_folder(source)
    arrays = [name for name in names if _is_array(name)]
    words_by_array = {name: split_and_other_words(_stem(name))[1] for name in arrays}
    only_images = not source.prefix and all(
        subject_of_labels(words_by_array[name]) is not None or name.endswith("_ids.npy") for name in arrays
    )
    labels = _labels_among(arrays, split, subject) or (_labels_among(arrays, split, "") if only_images else [])
    folder = source.path.parent
    return Companions(
        labels=[folder / name for name in labels],
        unread=[folder / name for name in _labels_among([n for n in names if not _is_array(n)], split, subject)],
        class_names=[
            folder / name
            for name in arrays
            if name not in labels and subject_of_class_names(words_by_array[name]) is not None
        ],
    )


def is_npy(name: str) -> bool:
    """Return whether a name is that of a .npy file, compressed or not."""
    return _NPY.search(name) is not None


def export_companions(file: Path) -> list[Path]:
    """List the files that `imagelake export --to npy` wrote with an array of images; empty unless all are there."""
    role = file.name.removesuffix(_EXPORT_IMAGES)
    files = [file.with_name(f"{role}{ending}") for ending in _EXPORT_COMPANIONS] if role != file.name else []
    return files if all(found.is_file() for found in files) else []


def _names_in_folder(source: Source) -> list[str]:
    """List the other files of the folder that are arrays or may hold labels, sorted."""
    folder = source.path.parent
    try:
        with os.scandir(folder) as entries:
            usable = [
                entry for entry in entries if _is_array(entry.name) or entry.name.lower().endswith(_UNREAD_ENDINGS)
            ]
            return sorted(entry.name for entry in usable if entry.name != source.path.name and entry.is_file())
    except OSError as error:
        raise SourceError(f"{source.title}: cannot list {folder} ({error.strerror}). Check the folder.") from error


def _labels_among(names: list[str], split: str | None, subject: str) -> list[str]:
    """Choose the names of labels: with the split, else without one; names that may mean class names come last."""
    candidates = []
    for name in names:
        its_split, words = split_and_other_words(_stem(name))
        if subject_of_labels(words) == subject:
            candidates.append((name, its_split, subject_of_class_names(words) is None))
    for is_certain in (True, False):
        for wanted_split in dict.fromkeys((split, None)):
            found = [name for name, *rest in candidates if rest == [wanted_split, is_certain]]
            if found:
                return found
    return []


def _is_array(name: str) -> bool:
    return is_npy(name) or name.lower().endswith(_NPZ)


def _stem(name: str) -> str:
    return name.partition(".")[0]
