"""Normalise labels, and recognise label columns by their names.

Labels of all forms of sources are normalised in the same way:

- Unicode form C: a folder that macOS names in form D is the same class as elsewhere.
- No white space at the ends: `cat ` is `cat`. Only white space is no label.
- A whole number with `.0`, as in tables with missing values, is the number: `7.0` is `7`. `01` stays `01`.

References:
    Unicode Standard Annex 15, Unicode Normalization Forms.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from pipeline.shard import Encoded

_NUMBER = re.compile(r"(-?[0-9]+)\.0+", re.ASCII)


@lru_cache(2**12)
def normal_label(label: str | None) -> str | None:
    """Return the normalised label; None if there is none."""
    if label is None:
        return None
    # Stripped afterwards: some characters become a space by normalisation.
    text = unicodedata.normalize("NFC", label).strip()
    number = _NUMBER.fullmatch(text)
    return (number[1] if number else text) or None


def with_normal_labels(shard: Encoded) -> Encoded:
    """Normalise the labels of a shard, and record the changed ones in `respelled`."""
    changed = {
        label: normal
        for label in {*shard.labels, *(item.label for item in shard.rejects)}
        if (normal := normal_label(label)) != label and label is not None
    }
    if not changed:
        return shard
    rejects = tuple(item._replace(label=_normalised(item.label, changed)) for item in shard.rejects)
    return replace(shard, labels=_all(shard.labels, changed), rejects=rejects, respelled=changed)


def _all(labels: Iterable[str | None], changed: dict[str, str | None]) -> tuple[str | None, ...]:
    return tuple(_normalised(label, changed) for label in labels)


def _normalised(label: str | None, changed: dict[str, str | None]) -> str | None:
    return None if label is None else changed.get(label, label)


# The first pattern that matches a column counts: a table with a column "label" may also have a column "y".
_USUAL_LABELS = (
    re.compile(r"labels?|class|category|target"),
    re.compile(r"cls|classes|categories|targets|(label|class|category|target)(name|label|id|idx|index)"),
    re.compile(r"y|digit|character|char|letter"),
)
# Parts of other names that suggest labels.
_LABEL_WORDS = re.compile(r"label|class|categor|target|digit|tags?$|^y$|^cls|cls$|species|breed")

# Columns that number or name the rows, as in pandas, R and competitions: id, ImageId, row_id, index, Unnamed: 0.
_ID = re.compile(
    r"|(row|image|img|sample|example|picture|u|uu|gu)?(ids?|idx|index)|(row|image|img)(number|names?|path|file)?"
    r"|file(name|path)?|path|key|url|(unnamed|(index)?level)\d*"
)


def plain(name: str) -> str:
    """Return the letters and digits of a column's name in lower case: "classname" for "Class_Name"."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def usual_labels(names: Sequence[str]) -> list[int]:
    """Find the columns that have a usual name of a label column.

    Args:
        names: names of columns, in the order of the table.

    Returns:
        Indices of the label columns: none, one, or several candidates. With a column "x", a column "y" is a coordinate.
    """
    spelled = list(map(plain, names))
    for usual in _USUAL_LABELS:
        found = [
            at for at, name in enumerate(spelled) if usual.fullmatch(name) and not (name == "y" and "x" in spelled)
        ]
        if found:
            return found
    return []


def resembles_label(name: str) -> bool:
    """Return whether a name suggests labels: "fine_label", "tags", "image_class"."""
    return bool(_LABEL_WORDS.search(plain(name)))


def is_id(name: str) -> bool:
    """Return whether a column numbers or names the rows, by its name; an empty name does."""
    return bool(_ID.fullmatch(plain(name)))
