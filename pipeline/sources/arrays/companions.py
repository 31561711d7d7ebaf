"""Files beside a .npy that belong to its images: labels, names of classes, and what `export --to npy` writes with them.

`train_labels.npy` or `y_train.npy` has the labels of `train_images.npy` or `x_train.npy`: it is called like labels, and
split and other words of the two names agree. Labels whose name says no split come next. In a folder without other
arrays, `labels.npy` has the labels of `digits.npy`. Names of classes are `classes.npy`, `label_names.npy` and the like
(see `class_names`).

Names of classes in an array of their own, beside labels that are numbers: position i names class i.

An array holds such names if it is called `classes`, `class_names`, `label_names`, `target_names`, `label_meanings` or
the like and is one-dimensional text. It belongs to the labels that have the same other words in their name
(`fine_label_names` to `fine_labels`), and without other words to any labels. A name that says a split belongs to labels
of that split.

The numbers stay where it is not sure that the array names them: labels that are text, several such arrays, a name that
occurs twice (then the array holds one text an image), or a label that has no name. With classes from 1 to 10 and ten
names, as in SVHN, 10 has no name. -1 is no label where classes have names.

An array `classes` that is as long as the images and the only one called like labels holds the labels themselves. Where
`labels` and `classes` are both as long as the images, and neither name says the split, it is an error (see `named`).
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import SourceError
from pipeline.recipe.naming import SPLITS, words_of
from pipeline.sources.arrays.array_values import Stored
from pipeline.sources.source import Source

_NAMES = re.compile(
    r"(?:^|_)(?:classes|categories|(?:class|cls|label|target|category)(?:e?s)?_?(?:names?|meanings?|texts?))$"
)
_LABELS = re.compile(r"(?:^|_)(?:y|(?:class|label|target)(?:e?s)?)(?=_|$)")
# More text than this is no list of classes.
_MOST_BYTES = 2**26


def choose_names(arrays: Sequence[Stored], images: Stored, labels: Stored | None) -> Stored | None:
    """Find the names of the classes.

    Args:
        arrays: all that may hold them.
        images: the images.
        labels: their labels; None where there are none.

    Returns:
        The array whose row i names label i, or None.
    """
    if labels is None or labels.dtype.kind not in "buif":
        return None
    split, rest = split_and_rest(labels.name)
    about = about_labels(rest) or ""
    named = [
        (array, its_split, its_about)
        for array in arrays
        if array is not images and array is not labels and _is_list_of_text(array)
        for its_split, words in [split_and_rest(array.name)]
        if (its_about := about_names(words)) is not None
    ]
    tries = [
        [array for array, its_split, its_about in named if (its_split, its_about) == (wanted, other)]
        for other in dict.fromkeys((about, ""))
        for wanted in dict.fromkeys((split, None))
    ]
    best: Sequence[Stored] = next((names for names in tries if names), [])
    return best[0] if len(best) == 1 else None


def split_and_rest(name: str) -> tuple[str | None, str]:
    """Cut the name of an array or file into the split that it says, or None, and its other words, joined by "_"."""
    words = words_of(name)
    split = next((SPLITS[word] for word in words if word in SPLITS), None)
    return split, "_".join(word for word in words if word and word not in SPLITS)


def about_names(words: str) -> str | None:
    """Tell the words in front of "class_names" or the like; None where the words do not end so."""
    found = _NAMES.search(words)
    return words[: found.start()] if found else None


def about_labels(words: str) -> str | None:
    """Tell the words beside "labels" or the like; None where there is no such word."""
    return _LABELS.sub("", words).strip("_") if _LABELS.search(words) else None


def _is_list_of_text(array: Stored) -> bool:
    is_list = len(array.shape) > 0 and array.shape[1:] in ((), (1,))
    return is_list and array.dtype.kind in "SU" and array.row_bytes * array.shape[0] <= _MOST_BYTES


_NPY = re.compile(r"\.npy(\.(gz|bz2|xz))?$", re.IGNORECASE)
_NPZ = ".npz"
# Other kinds of files in which labels lie beside an array.
_OTHERS = (".csv", ".tsv", ".txt", ".json", ".mat", ".parquet", ".pkl", ".pickle", ".pt", ".h5")
_IMAGES = ("x", "image", "images", "img", "imgs", "pictures", "pixels", "data", "dataset")
# With every ROLE_images.npy, an export has these.
_EXPORTED = ("_labels.npy", "_ids.npy", "_index.parquet")
_EXPORTED_IMAGES = "_images.npy"


class Beside(NamedTuple):
    """What lies beside an array of images.

    Attributes:
        labels: arrays that are called like its labels.
        unread: files that are called like its labels and are of a kind that is not read, such as `labels.csv`.
        names: arrays that are called like names of classes.
    """

    labels: list[Path]
    unread: list[Path]
    names: list[Path]


def look_beside(source: Source) -> Beside:
    """Find the files that belong to the images of a .npy, by their names.

    Raises:
        SourceError: the folder cannot be listed.
    """
    split, rest = split_and_rest(_stem(source.path.name))
    about = "_".join(word for word in rest.split("_") if word not in _IMAGES)
    files = _listed(source)
    arrays = [name for name in files if is_npy(name) or name.lower().endswith(_NPZ)]
    words = {name: split_and_rest(_stem(name))[1] for name in arrays}
    alone = not source.prefix and all(about_labels(words[name]) is not None or _is_ids(name) for name in arrays)
    labels = _labels_of(arrays, split, about) or (_labels_of(arrays, split, "") if alone else [])
    others = [name for name in files if name not in words]
    names = [name for name in arrays if about_names(words[name]) is not None and name not in labels]
    folder = source.path.parent
    return Beside(
        labels=[folder / name for name in labels],
        unread=[folder / name for name in _labels_of(others, split, about)],
        names=[folder / name for name in names],
    )


def is_npy(name: str) -> bool:
    """Tell a .npy, compressed or not, by its name."""
    return _NPY.search(name) is not None


def exported_with(file: Path) -> list[Path]:
    """List the files that `imagelake export --to npy` wrote for an array of images; empty where not all are there."""
    role = file.name.removesuffix(_EXPORTED_IMAGES)
    files = [file.with_name(f"{role}{ending}") for ending in _EXPORTED] if role != file.name else []
    return files if all(found.is_file() for found in files) else []


def _listed(source: Source) -> list[str]:
    """List the other files of the folder that are arrays or may hold labels."""
    folder = source.path.parent
    try:
        with os.scandir(folder) as found:
            named = [entry for entry in found if is_npy(entry.name) or entry.name.lower().endswith((_NPZ, *_OTHERS))]
            return sorted(entry.name for entry in named if entry.name != source.path.name and entry.is_file())
    except OSError as error:
        raise SourceError(f"{source.title}: cannot list {folder} ({error.strerror}). Check the folder.") from error


def _labels_of(names: list[str], split: str | None, about: str) -> list[str]:
    """Choose the names that are those of labels: of the split, or else of no split; names of classes last."""
    cut = [(name, *split_and_rest(_stem(name))) for name in names]
    fitting = [(name, its, about_names(rest) is None) for name, its, rest in cut if about_labels(rest) == about]
    tries = [
        [name for name, its, sure in fitting if (its, sure) == (wanted, is_sure)]
        for is_sure in (True, False)
        for wanted in dict.fromkeys((split, None))
    ]
    return next((found for found in tries if found), [])


def _is_ids(name: str) -> bool:
    return name.endswith("_ids.npy")


def _stem(name: str) -> str:
    return name.partition(".")[0]
