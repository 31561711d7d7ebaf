"""The usual names of a column of labels: one definition for CSV files of pixels, lists of files and Parquet."""

import re
from collections.abc import Sequence

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
