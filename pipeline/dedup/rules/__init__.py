"""What counts as the same picture: one file per rule, the choice a dict.

A rule turns a batch of pixels into entries of the index. For exact, sign and maxpool the entries are blocking keys, and
equal keys are the whole of the rule. The others compare: entries give candidates, and a score decides; none is missed.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.rules import cosine, embedding, exact, hamming, maxpool, photo, sign
from pipeline.dedup.rules.comparison import Candidates, Comparison, Entries, FromPixels, Verified
from pipeline.errors import RecipeError
from pipeline.recipe.rules import rule_known_as

__all__ = ["Candidates", "Comparison", "Entries", "Rule", "Verified", "parse_rule"]

Pixels = NDArray[np.uint8]

# From (n, height, width, channels) uint8 to (n, 16) uint8: equal rows, and only those, are the same picture.
Keys = Callable[[Pixels], Pixels]


@dataclass(frozen=True)
class Rule:
    """A rule, ready to run.

    Attributes:
        name: as the recipe spells it, such as "maxpool:4".
        describe: pictures of one shape, (n, height, width, channels) uint8, to what the index holds of them; a pure
            function of each picture. None where the user brings that.
        comparison: how images are compared; None where equal keys and signatures are the whole of the rule.
    """

    name: str
    describe: Callable[[Pixels], Entries] | None
    comparison: Comparison | None = None

    def index(self, pixels: Pixels) -> Entries:
        """Describe pictures of one shape; only rules that read pixels are asked to."""
        if self.describe is None:
            raise AssertionError(f"rule {self.name} is not indexed by pixels")
        return self.describe(pixels)


# By family: what equal keys decide, and what compares.
_KEYED: dict[str, Callable[[str | None], Keys]] = {
    "exact": exact.rule,
    "sign": sign.rule,
    "maxpool": maxpool.rule,
}
_COMPARED: dict[str, Callable[[str | None], Comparison]] = {
    "hamming": hamming.rule,
    "cosine": cosine.rule,
    "photo": photo.rule,
    "embedding": embedding.rule,
}
_SPELLED = "exact, sign, maxpool:k, hamming:d, cosine:t, photo:t, embedding:NAME:t"


def parse_rule(name: str) -> Rule:
    """Make a rule from its name.

    Args:
        name: a family, with a parameter behind a colon where it takes one: "exact", "sign", "maxpool:4".

    Raises:
        RecipeError: no such rule, or a parameter that it does not take; the nearest name is given, also for what other
            tools call their methods, such as "phash".
    """
    family, colon, written = name.partition(":")
    parameter = written if colon else None
    try:
        if family in _KEYED:
            return Rule(name, _entries_of(_KEYED[family](parameter)))
        if family in _COMPARED:
            comparison = _COMPARED[family](parameter)
            return Rule(name, comparison.index if isinstance(comparison, FromPixels) else None, comparison)
    except ValueError as error:
        raise RecipeError(f"rule '{name}': {error}.") from None
    raise RecipeError(f"unknown rule '{name}'; {_hint(family, name)}Known rules: {_SPELLED}.")


def _hint(family: str, name: str) -> str:
    families = [*_KEYED, *_COMPARED]
    if family.strip().lower() in families:
        return f"did you mean '{name.strip().lower()}'? "
    if known := rule_known_as(name):
        return f"did you mean '{known[0]}' ({known[1]})? "
    near = difflib.get_close_matches(family, families, n=1, cutoff=0.4)
    return f"did you mean '{near[0]}'? " if near else ""


def _entries_of(keys: Keys) -> Callable[[Pixels], Entries]:
    """See a 16-byte key as two 64-bit words: `key` to block by and `signature` to compare."""

    def entries(pixels: Pixels) -> Entries:
        both = np.ascontiguousarray(keys(pixels)).view(">i8").astype(np.int64)
        return Entries(both[:, 0], both[:, 1], np.empty((len(both), 0), np.uint8))

    return entries
