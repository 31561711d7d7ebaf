"""Names of classes in an array of their own, beside labels that are numbers: position i names class i.

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

import re
from collections.abc import Sequence

from pipeline.recipe.naming import SPLITS, words_of
from pipeline.sources.stored import Stored

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
