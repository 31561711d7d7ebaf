"""What counts as the same picture: one file per rule, the choice a dict.

A rule turns a batch of pixels into blocking keys. Only images that share a key can be the same picture. All rules here
are decided by their keys: equal keys are the whole of the rule, and nothing is left to verify.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.rules import exact, maxpool, sign
from pipeline.errors import RecipeError

Pixels = NDArray[np.uint8]

# From (n, height, width, channels) uint8 to (n, 16) uint8: equal rows, and only those, are the same picture.
Keys = Callable[[Pixels], Pixels]


@dataclass(frozen=True)
class Rule:
    """A rule, ready to run.

    Attributes:
        name: as the recipe spells it, such as "maxpool:4".
        keys: pixels of one shape to 16-byte keys, a pure function of each row.
    """

    name: str
    keys: Keys


_FAMILIES: dict[str, Callable[[str | None], Keys]] = {
    "exact": exact.rule,
    "sign": sign.rule,
    "maxpool": maxpool.rule,
}


def parse_rule(name: str) -> Rule:
    """Make a rule from its name.

    Args:
        name: a family, with a parameter behind a colon where it takes one: "exact", "sign", "maxpool:4".

    Raises:
        RecipeError: no such rule, or a parameter that it does not take; the nearest name is given.
    """
    family, _, parameter = name.partition(":")
    if family not in _FAMILIES:
        near = difflib.get_close_matches(family, _FAMILIES, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise RecipeError(f"unknown rule '{name}'; {hint}Known rules: exact, sign, maxpool:k.")
    try:
        return Rule(name, _FAMILIES[family](parameter if ":" in name else None))
    except ValueError as error:
        raise RecipeError(f"rule '{name}': {error}.") from None
