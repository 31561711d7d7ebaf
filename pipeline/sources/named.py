"""Which arrays of a file are its images, and which its labels: what the recipe says, else the usual names, else shape.

A name is read word by word: `x_train`, `train_images`, `trainX` and `train_dataset` are images of split train,
`y_train`, `train_labels` its labels. A source takes the arrays whose name says its own split, or, where there are none,
those whose name says no split. An array that could be meant only by its shape is taken if it is the only one.
"""

import re
from collections.abc import Sequence

from pipeline.errors import SourceError
from pipeline.sources.source import Source
from pipeline.sources.stored import Stored, listed

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "t10k"), "test"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid"),
}
_KINDS = {
    **dict.fromkeys(("x", "image", "images", "img", "imgs", "pictures", "pixels", "data", "dataset"), "images"),
    **dict.fromkeys(("y", "label", "labels", "target", "targets", "class", "classes"), "labels"),
}
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
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
    split = _SPLITS.get(source.split.lower(), source.split.lower())
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
    return best[0] if best else None


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
    return array.shape[:1] == images.shape[:1] and array.shape[1:] in ((), (1,))


def _kind(array: Stored) -> str | None:
    return next((_KINDS[word] for word in reversed(_words(array)) if word in _KINDS), None)


def _split(source: Source, array: Stored) -> str | None:
    """Tell the split in a name; words outside the usual ones count only where the source's own split is so called."""
    words = (word if word == source.split.lower() else _SPLITS.get(word) for word in _words(array))
    return next((_SPLITS.get(word, word) for word in words if word), None)


def _words(array: Stored) -> list[str]:
    return re.split(r"[^a-z0-9]+", _HUMP.sub("_", array.name).lower())
