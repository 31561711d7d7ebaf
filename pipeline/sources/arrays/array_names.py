"""Which arrays of a file are its images, and which its labels: what the recipe says, else the usual names, else shape.

A name is read word by word: `x_train`, `train_images`, `trainX` and `train_dataset` are images of split train,
`y_train`, `train_labels` its labels. A source takes the arrays whose name says its own split, or, where there are none,
those whose name says no split. An array that could be meant only by its shape is taken if it is the only one.
"""

from collections.abc import Sequence

from pipeline.errors import SourceError
from pipeline.recipe.naming import SPLITS, words_of
from pipeline.sources.arrays.array_values import Stored, listed
from pipeline.sources.source import Source

_KINDS = {
    **dict.fromkeys(("x", "image", "images", "img", "imgs", "pictures", "pixels", "data", "dataset"), "images"),
    **dict.fromkeys(("y", "label", "labels", "target", "targets", "class", "classes"), "labels"),
}
_PICTURES = (3, 4)  # dimensions


def choose_images(source: Source, arrays: Sequence[Stored]) -> Stored:
    """Find the images.

    Args:
        source: its `images` names the array; otherwise its split tells which are meant.
        arrays: all that the file has.

    Raises:
        SourceError: listing the arrays: none may be the images, or several.
    """
    if source.part.images is not None:
        return named(source, arrays, source.part.images, "images")
    usable = [array for array in arrays if len(array.shape) in _PICTURES]
    split = SPLITS.get(source.split.lower(), source.split.lower())
    ours = [array for array in usable if _split(source, array) == split]
    fitting = ours or [array for array in usable if _split(source, array) is None]
    best = [array for array in fitting if _kind(array) == "images"] or [a for a in fitting if _kind(a) is None]
    if len(best) != 1:
        raise SourceError(
            f"{source.title}: {'several arrays' if best else 'no array'} of {source.path} may be the images of split "
            f"'{source.split}', as (n, height, width) or with 1 or 3 channels. It has: {listed(arrays)}. Name one with "
            'images = "..." in the recipe.'
        )
    return best[0]


def splits_of_arrays(arrays: Sequence[Stored]) -> list[str]:
    """List the splits that the names of arrays of images say, such as `x_train` and `test_images`: train first."""
    found = {
        SPLITS[word]
        for array in arrays
        if len(array.shape) in _PICTURES and _kind(array) != "labels"
        for word in words_of(array.name)
        if word in SPLITS
    }
    return [split for split in ("train", "valid", "test") if split in found]


def unread_arrays(arrays: Sequence[Stored]) -> str:
    """Name arrays of images that no split takes, where others name one; empty for none."""
    pictures = [array for array in arrays if len(array.shape) in _PICTURES and _kind(array) == "images"]
    left = [array for array in pictures if not any(word in SPLITS for word in words_of(array.name))]
    if not left or len(left) == len(pictures):
        return ""
    return (
        f"{', '.join(array.title for array in left)} is not read, as its name tells no split. Name it with "
        'images = "..." and labels = "..." in a [[source]] of its own.'
    )


def choose_labels(source: Source, arrays: Sequence[Stored], images: Stored) -> Stored | None:
    """Find the labels of images.

    Args:
        source: its `labels` names the array; the empty name says that there are none.
        arrays: all that the file has.
        images: the images among them.

    Returns:
        Their labels, or None: no array is named like labels of these images, and none has their length.

    Raises:
        SourceError: listing the arrays: several may be the labels.
    """
    if source.part.labels is not None:
        return named(source, arrays, source.part.labels, "labels") if source.part.labels else None
    split = _split(source, images)
    ours = [array for array in arrays if array is not images and _split(source, array) in (split, None)]
    called = [array for array in ours if _kind(array) == "labels"]
    best = [array for array in called if _split(source, array) == split] or called
    best = best or [array for array in ours if _kind(array) is None and _has_length_of(images, array)]
    # Names of classes, say, are called like labels too.
    best = [array for array in best if _has_length_of(images, array)] or best
    if len(best) > 1:
        raise SourceError(
            f"{source.title}: several arrays of {source.path} may be the labels of {images.title}. It has: "
            f'{listed(arrays)}. Name one with labels = "..." in the recipe, or none with labels = "".'
        )
    if not best:
        _check_rest(source, arrays, images)
    return best[0] if best else None


def _check_rest(source: Source, arrays: Sequence[Stored], images: Stored) -> None:
    """Refuse to pass over arrays that may be the labels, such as one-hot rows: they have a row for every image."""
    split = _split(source, images)
    rest = [array for array in arrays if array is not images and array.shape[:1] == images.shape[:1]]
    rest = [array for array in rest if len(array.shape) < min(_PICTURES) or set(array.shape[1:]) <= {1}]
    rest = [array for array in rest if split is None or _split(source, array) in (split, None)]
    if rest:
        raise SourceError(
            f"{source.title}: no array of {source.path} is called labels, but {listed(rest)} may be those of "
            f'{images.title}. Name it with labels = "..." in the recipe, or say labels = "" for no labels.'
        )


def named(source: Source, arrays: Sequence[Stored], name: str, what: str) -> Stored:
    """Find an array by name.

    Raises:
        SourceError: listing the arrays.
    """
    found = next((array for array in arrays if array.name == name), None)
    if found is None:
        raise SourceError(
            f"{source.title}: no array '{name}' in {source.path}. It has: {listed(arrays)}. Mend {what} in the recipe."
        )
    return found


def _has_length_of(images: Stored, array: Stored) -> bool:
    return array.shape[:1] == images.shape[:1] and set(array.shape[1:]) <= {1}


def _kind(array: Stored) -> str | None:
    return next((_KINDS[word] for word in reversed(_words(array)) if word in _KINDS), None)


def _split(source: Source, array: Stored) -> str | None:
    """Tell the split in a name; words outside the usual ones count only where the source's own split is so called."""
    words = (word if word == source.split.lower() else SPLITS.get(word) for word in _words(array))
    return next((SPLITS.get(word, word) for word in words if word), None)


def _words(array: Stored) -> list[str]:
    return words_of(array.name)
