"""One spelling for every class, whatever its source: labels are normalised here, for every form.

- Unicode form C: a folder that macOS names in form D is the class of the same letters elsewhere.
- No white space at the ends: `cat ` is `cat`. What is only white space is no label.
- Digits followed by `.0` are the number, as tables write numbers beside gaps: `7.0` is `7`. `01` stays.

References:
    Unicode Standard Annex 15, Unicode Normalization Forms.

The usual names of a column of labels: one definition for CSV files of pixels, lists of files and Parquet.
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
    """Spell a label as the lake has it; None where there is none."""
    if label is None:
        return None
    # Stripped after: some characters become a space only by their normal form.
    text = unicodedata.normalize("NFC", label).strip()
    number = _NUMBER.fullmatch(text)
    return (number[1] if number else text) or None


def with_normal_labels(shard: Encoded) -> Encoded:
    """Normalise the labels of a shard, and note in `respelled` which of them change."""
    changed = {
        label: normal
        for label in {*shard.labels, *(item.label for item in shard.refused)}
        if (normal := normal_label(label)) != label and label is not None
    }
    if not changed:
        return shard
    refused = tuple(item._replace(label=_spelled(item.label, changed)) for item in shard.refused)
    return replace(shard, labels=_all(shard.labels, changed), refused=refused, respelled=changed)


def _all(labels: Iterable[str | None], changed: dict[str, str | None]) -> tuple[str | None, ...]:
    return tuple(_spelled(label, changed) for label in labels)


def _spelled(label: str | None, changed: dict[str, str | None]) -> str | None:
    return None if label is None else changed.get(label, label)


# The first pattern of which a table has a name counts: a table with a column "label" may have a column "y" as well.
_USUAL = (
    re.compile(r"labels?|class|category|target"),
    re.compile(r"cls|classes|categories|targets|(label|class|category|target)(name|label|id|idx|index)"),
    re.compile(r"y|digit|character|char|letter"),
)
# Parts of names that suggest labels.
_LABEL_WORDS = re.compile(r"label|class|categor|target|digit|tags?$|^y$|^cls|cls$|species|breed")

# Columns that count or name the rows, as pandas, R and competitions write them: id, ImageId, row_id, index, Unnamed: 0.
_ID = re.compile(
    r"|(row|image|img|sample|example|picture|u|uu|gu)?(ids?|idx|index)|(row|image|img)(number|names?|path|file)?"
    r"|file(name|path)?|path|key|url|(unnamed|(index)?level)\d*"
)


def plain(name: str) -> str:
    """Reduce a column's name to its letters and digits, in lower case: "Class_Name" is "classname"."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def usual_labels(names: Sequence[str]) -> list[int]:
    """Find the columns that have a usual name of a label column.

    Args:
        names: the columns that may be meant, in the order of the table.

    Returns:
        Their positions: none, one, or several that could all be meant. A column "y" beside a column "x" is a
        coordinate.
    """
    spelled = list(map(plain, names))
    for usual in _USUAL:
        found = [
            at for at, name in enumerate(spelled) if usual.fullmatch(name) and not (name == "y" and "x" in spelled)
        ]
        if found:
            return found
    return []


def resembles_label(name: str) -> bool:
    """Tell whether a name suggests labels without being a usual one: "fine_label", "tags", "image_class"."""
    return bool(_LABEL_WORDS.search(plain(name)))


def is_id(name: str) -> bool:
    """Tell whether a name is one of a column that counts or names the rows; the empty name is."""
    return bool(_ID.fullmatch(plain(name)))
