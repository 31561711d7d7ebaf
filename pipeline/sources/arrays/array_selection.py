"""Choose the arrays of a file that hold the images, their labels and the names of the classes.

The recipe's `images` and `labels` decide. Without them, the words in the names of the arrays decide: `x_train`,
`train_images`, `trainX` and `train_dataset` are images of split train, `y_train` and `train_labels` are its labels.
A source takes the arrays whose name has its own split. If there are none, it takes those whose name has no split.
Where no name decides, an array is taken by its shape if it is the only one that fits.

`choose_class_names` says which array holds the names of the classes.
"""

import re
from collections.abc import Sequence

from pipeline.errors import SourceError
from pipeline.recipe.naming import SPLITS, words_of
from pipeline.sources.arrays.array_shards import StoredArray, describe_arrays
from pipeline.sources.source import Source

IMAGE_WORDS = ("x", "image", "images", "img", "imgs", "pictures", "pixels", "data", "dataset")
_LABEL_WORDS = ("y", "label", "labels", "target", "targets", "class", "classes")
_ROLES = {**dict.fromkeys(IMAGE_WORDS, "images"), **dict.fromkeys(_LABEL_WORDS, "labels")}
_IMAGE_DIMENSIONS = (3, 4)

_CLASS_NAMES = re.compile(
    r"(?:^|_)(?:classes|categories|(?:class|cls|label|target|category)(?:e?s)?_?(?:names?|meanings?|texts?))$"
)
_LABELS = re.compile(r"(?:^|_)(?:y|(?:class|label|target)(?:e?s)?)(?=_|$)")
# An array with more text than this is not a list of class names.
_MAX_CLASS_NAMES_BYTES = 2**26


def choose_images(source: Source, arrays: Sequence[StoredArray]) -> StoredArray:
    """Choose the array of images.

    Args:
        source: its `images` names the array. Without `images`, its split decides.
        arrays: all arrays of the file.

    Returns:
        One of `arrays`.

    Raises:
        SourceError: no array fits, or several do. The message lists the arrays.
    """
    if source.part.images is not None:
        return _array_named(source, arrays, source.part.images, "images")
    usable = [array for array in arrays if len(array.shape) in _IMAGE_DIMENSIONS]
    split = SPLITS.get(source.split.lower(), source.split.lower())
    of_split = [array for array in usable if _split_in(source, array) == split]
    candidates = of_split or [array for array in usable if _split_in(source, array) is None]
    found = [array for array in candidates if _role(array) == "images"]
    found = found or [array for array in candidates if _role(array) is None]
    if len(found) != 1:
        raise SourceError(
            f"{source.title}: {'several arrays' if found else 'no array'} of {source.path} may be the images of split "
            f"'{source.split}', as (n, height, width) or with 1 or 3 channels. It has: {describe_arrays(arrays)}. Name "
            'one with images = "..." in the recipe.'
        )
    return found[0]


def choose_labels(source: Source, arrays: Sequence[StoredArray], images: StoredArray) -> StoredArray | None:
    """Choose the array of labels that belongs to an array of images.

    Args:
        source: its `labels` names the array; the empty name means that there are no labels.
        arrays: all arrays of the file.
        images: the images among them.

    Returns:
        One of `arrays`. None if no array is named like labels of these images and none has one value per image.

    Raises:
        SourceError: several arrays may be the labels. The message lists the arrays.
    """
    if source.part.labels is not None:
        return _array_named(source, arrays, source.part.labels, "labels") if source.part.labels else None
    split = _split_in(source, images)
    candidates = [array for array in arrays if array is not images and _split_in(source, array) in (split, None)]
    named = [array for array in candidates if _role(array) == "labels"]
    found = [array for array in named if _split_in(source, array) == split] or named
    found = found or [array for array in candidates if _role(array) is None and _one_value_per_image(images, array)]
    # Names of classes, for example, are called like labels too.
    found = [array for array in found if _one_value_per_image(images, array)] or found
    if len(found) > 1:
        raise SourceError(
            f"{source.title}: several arrays of {source.path} may be the labels of {images.description}. It has: "
            f'{describe_arrays(arrays)}. Name one with labels = "..." in the recipe, or set labels = "" for no labels.'
        )
    if not found:
        _check_unnamed_labels(source, arrays, images)
    return found[0] if found else None


def choose_class_names(
    arrays: Sequence[StoredArray], images: StoredArray, labels: StoredArray | None
) -> StoredArray | None:
    """Choose the array with the names of the classes, where row i is the name of label i.

    Such an array is one-dimensional text and is called `classes`, `class_names`, `label_names`, `target_names`,
    `label_meanings` or the like. It belongs to the labels with the same other words in their name (`fine_label_names`
    to `fine_labels`). Without other words it belongs to any labels. A name with a split belongs to labels of that
    split.

    Args:
        arrays: all arrays that may hold the names.
        images: the images.
        labels: their labels, or None.

    Returns:
        One of `arrays`. None if the labels are not numbers, or if no array fits, or several do.
    """
    if labels is None or labels.dtype.kind not in "buif":
        return None
    split, words = split_and_other_words(labels.name)
    subject = subject_of_labels(words) or ""
    named = []
    for array in arrays:
        its_split, its_words = split_and_other_words(array.name)
        its_subject = subject_of_class_names(its_words)
        if array is not images and array is not labels and its_subject is not None and _is_list_of_text(array):
            named.append((array, its_split, its_subject))
    for wanted_subject in dict.fromkeys((subject, "")):
        for wanted_split in dict.fromkeys((split, None)):
            found = [array for array, *parts in named if parts == [wanted_split, wanted_subject]]
            if found:
                return found[0] if len(found) == 1 else None
    return None


def splits_of_arrays(arrays: Sequence[StoredArray]) -> list[str]:
    """List the splits in the names of arrays of images, such as `x_train` and `test_images`.

    Returns:
        Some of "train", "valid" and "test", in this order.
    """
    found = {
        SPLITS[word]
        for array in arrays
        if len(array.shape) in _IMAGE_DIMENSIONS and _role(array) != "labels"
        for word in words_of(array.name)
        if word in SPLITS
    }
    return [split for split in ("train", "valid", "test") if split in found]


def unread_arrays(arrays: Sequence[StoredArray]) -> str:
    """Say which arrays of images are not read because their name has no split, while other names have one.

    Returns:
        A sentence, or "".
    """
    images = [array for array in arrays if len(array.shape) in _IMAGE_DIMENSIONS and _role(array) == "images"]
    unread = [array for array in images if not any(word in SPLITS for word in words_of(array.name))]
    if not unread or len(unread) == len(images):
        return ""
    return (
        f"{', '.join(array.description for array in unread)} is not read, because no split is in its name. Name it "
        'with images = "..." and labels = "..." in a [[source]] of its own.'
    )


def split_and_other_words(name: str) -> tuple[str | None, str]:
    """Separate the split in the name of an array or file from its other words.

    Returns:
        The split, or None; the other words in lower case, joined by "_".
    """
    words = words_of(name)
    split = next((SPLITS[word] for word in words if word in SPLITS), None)
    return split, "_".join(word for word in words if word and word not in SPLITS)


def subject_of_class_names(words: str) -> str | None:
    """Find the words before "class_names" or the like: "fine" of "fine_label_names"; None if no such words end it."""
    found = _CLASS_NAMES.search(words)
    return words[: found.start()] if found else None


def subject_of_labels(words: str) -> str | None:
    """Find the words beside "labels" or the like: "fine" in "fine_labels". None if there is no such word."""
    return _LABELS.sub("", words).strip("_") if _LABELS.search(words) else None


def _check_unnamed_labels(source: Source, arrays: Sequence[StoredArray], images: StoredArray) -> None:
    """Raise if an array that was not chosen may be the labels, such as one-hot rows: it has one row per image."""
    split = _split_in(source, images)
    rest = [array for array in arrays if array is not images and array.shape[:1] == images.shape[:1]]
    rest = [array for array in rest if len(array.shape) < min(_IMAGE_DIMENSIONS) or set(array.shape[1:]) <= {1}]
    rest = [array for array in rest if split is None or _split_in(source, array) in (split, None)]
    if rest:
        raise SourceError(
            f"{source.title}: no array of {source.path} is called labels, but {describe_arrays(rest)} may be the "
            f'labels of {images.description}. Name it with labels = "..." in the recipe, or set labels = "" for no '
            "labels."
        )


def _array_named(source: Source, arrays: Sequence[StoredArray], name: str, key: str) -> StoredArray:
    found = next((array for array in arrays if array.name == name), None)
    if found is None:
        raise SourceError(
            f"{source.title}: no array '{name}' in {source.path}. It has: {describe_arrays(arrays)}. Correct {key} in "
            "the recipe."
        )
    return found


def _one_value_per_image(images: StoredArray, array: StoredArray) -> bool:
    return array.shape[:1] == images.shape[:1] and set(array.shape[1:]) <= {1}


def _is_list_of_text(array: StoredArray) -> bool:
    is_list = len(array.shape) > 0 and array.shape[1:] in ((), (1,))
    return is_list and array.dtype.kind in "SU" and array.row_bytes * array.shape[0] <= _MAX_CLASS_NAMES_BYTES


def _role(array: StoredArray) -> str | None:
    """Return "images" or "labels" if a word of the name means that; the last such word decides."""
    return next((_ROLES[word] for word in reversed(words_of(array.name)) if word in _ROLES), None)


def _split_in(source: Source, array: StoredArray) -> str | None:
    """Find the split in an array's name: one of the usual words, or the name of the source's own split."""
    words = (word if word == source.split.lower() else SPLITS.get(word) for word in words_of(array.name))
    return next((SPLITS.get(word, word) for word in words if word), None)
