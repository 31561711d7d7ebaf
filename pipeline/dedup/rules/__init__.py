"""The rules that decide which images are duplicates: one module per family, chosen by `parse_rule`.

A rule turns a batch of pixels into entries of the index. Under exact, sign and maxpool, images with equal entries are
duplicates. The other rules are comparisons: entries give candidates, and a score decides. No pair is missed.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.rules import cosine, embedding, exact, hamming, maxpool, photo, sign
from pipeline.dedup.rules.comparison import Candidates, Comparison, Entries, FromPixels, Verified
from pipeline.errors import RecipeError
from pipeline.recipe.rules import FAMILIES, rule_known_as

__all__ = ["Candidates", "Comparison", "Entries", "Rule", "Verified", "parse_rule"]

Pixels = NDArray[np.uint8]

# From (n, height, width, channels) uint8 to (n, 16) uint8: images are duplicates if and only if their keys are equal.
Keys = Callable[[Pixels], Pixels]

_BY_KEYS: dict[str, Callable[[str | None], Keys]] = {
    "exact": exact.rule,
    "sign": sign.rule,
    "maxpool": maxpool.rule,
}
_BY_COMPARISON: dict[str, Callable[[str | None], Comparison]] = {
    "hamming": hamming.rule,
    "cosine": cosine.rule,
    "photo": photo.rule,
    "embedding": embedding.rule,
}


@dataclass(frozen=True)
class Rule:
    """A rule, ready to run.

    Attributes:
        name: name in the recipe, such as "maxpool:4".
        describe: turns images of one shape, (n, height, width, channels) uint8, into entries of the index; a pure
            function of each image. None if the user provides the entries.
        comparison: how images are compared; None if equal keys and signatures alone decide.
    """

    name: str
    describe: Callable[[Pixels], Entries] | None
    comparison: Comparison | None = None

    def index(self, pixels: Pixels) -> Entries:
        """Make the entries of images of one shape. The rule must read pixels."""
        if self.describe is None:
            raise AssertionError(f"rule {self.name} is not indexed by pixels")
        return self.describe(pixels)


def parse_rule(name: str) -> Rule:
    """Make a rule from its name.

    Args:
        name: a family, and a colon and a parameter if the family has one: "exact", "sign", "maxpool:4".

    Returns:
        The rule.

    Raises:
        RecipeError: the family or the parameter is unknown. The message suggests the nearest name, also for methods of
            other tools, such as "phash".
    """
    family, colon, text = name.partition(":")
    parameter = text if colon else None
    try:
        if family in _BY_KEYS:
            return Rule(name, _hash_entries(_BY_KEYS[family](parameter)))
        if family in _BY_COMPARISON:
            comparison = _BY_COMPARISON[family](parameter)
            return Rule(name, comparison.index if isinstance(comparison, FromPixels) else None, comparison)
    except ValueError as error:
        raise RecipeError(f"rule '{name}': {error}.") from None
    known = ", ".join(family.spelling for family in FAMILIES.values())
    raise RecipeError(f"unknown rule '{name}'; {_suggestion(family, name)}Known rules: {known}.")


def _suggestion(family: str, name: str) -> str:
    if family.strip().lower() in FAMILIES:
        return f"did you mean '{name.strip().lower()}'? "
    if known := rule_known_as(name):
        return f"did you mean '{known[0]}' ({known[1]})? "
    near = difflib.get_close_matches(family, FAMILIES, n=1, cutoff=0.4)
    return f"did you mean '{near[0]}'? " if near else ""


def _hash_entries(keys: Keys) -> Callable[[Pixels], Entries]:
    """Make entries of a 16-byte key: its first half is `key`, its second half `signature`."""

    def entries(pixels: Pixels) -> Entries:
        halves = np.ascontiguousarray(keys(pixels)).view(">i8").astype(np.int64)
        return Entries(halves[:, 0], halves[:, 1], np.empty((len(halves), 0), np.uint8))

    return entries
