"""One spelling for every class, whatever its source: labels are normalised here, for every form.

- Unicode form C: a folder that macOS names in form D is the class of the same letters elsewhere.
- No white space at the ends: `cat ` is `cat`. What is only white space is no label.
- Digits followed by `.0` are the number, as tables write numbers beside gaps: `7.0` is `7`. `01` stays.

References:
    Unicode Standard Annex 15, Unicode Normalization Forms.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from pipeline.encoded import Encoded

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
