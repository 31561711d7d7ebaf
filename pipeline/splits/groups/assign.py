"""groups -> roles: whoever had a role keeps it, the others fill what is missing."""

from typing import NamedTuple

import numpy as np

from pipeline.recipe import SplitPart
from pipeline.splits.groups.fill import Entries, entries_of, take
from pipeline.splits.groups.large import place_large
from pipeline.splits.groups.pool import Mask, Pool
from pipeline.splits.groups.stay import (
    NONE,
    Before,
    Roles,
    asks_for_less,
    groups_before,
    roles_before,
    still_holds,
)
from pipeline.splits.groups.targets import Counts, targets


class Assigned(NamedTuple):
    """Who goes where.

    Attributes:
        role: (G,) int8, number of every group's role, or NONE.
        asked: by number of a role with a size or a share, (L,) int64.
        had: (n,) int8, the role of every image before, or NONE; None where the split is drawn anew.
        freed: (G,) bool, groups that lost their role because the recipe asks for less.
    """

    role: Roles
    asked: dict[int, Counts]
    had: Roles | None
    freed: Mask


def assign(spec: SplitPart, pool: Pool, before: Before | None) -> Assigned:
    """Give every group a role, or none.

    Roles with a size or a share are filled in the order of `keep`, each in the order of the seed; roles that take all
    get what these leave. So a group that several roles may draw from goes to the first in `keep` with need of it. A
    role that takes all is in need always, so those behind it in `keep` take no group of its, unless they draw from its
    images.

    Groups that had a role keep it. If the recipe asks for less than before, those at the end of the seed's order lose
    theirs and are free for others.

    Raises:
        SplitError: the roles of one source ask for more than it has.
    """
    asked = targets(spec, pool)
    entries = {role: entries_of(pool, role, counts) for role, counts in asked.items()}
    role = np.full(len(pool.order), NONE, dtype=np.int8)
    freed = np.zeros(len(pool.order), dtype=np.bool_)
    had = None
    if before is not None and still_holds(spec, before):
        had = roles_before(pool, before)
        role = groups_before(pool, had)
        for number, counts in asked.items():
            name = pool.roles[number]
            if asks_for_less(spec.roles[name], before.spec.roles[name]):
                freed |= (role == number) & ~take(entries[number], role == number, counts)
        role[freed] = NONE
    _fill(pool, role, asked, entries)
    return Assigned(role, asked, had, freed)


def _fill(pool: Pool, role: Roles, asked: dict[int, Counts], entries: dict[int, Entries]) -> None:
    """Give free groups a role; `role` is brought up to date in place."""
    rest = [number for number in range(len(pool.roles)) if number not in asked]
    spare: Mask = np.any(pool.allowed[rest], axis=0)
    may = {number: pool.allowed[number] & ~_reserved(pool, number, rest) & (role == NONE) for number in sorted(asked)}
    missing = {number: asked[number] - entries[number].total(role == number) for number in may}
    for number, large in place_large(pool, {n: entries[n] for n in may}, may, missing, spare).items():
        role[large] = number
        missing[number] = missing[number] - entries[number].total(large)
    for number, free in may.items():
        role[take(entries[number], free & (role == NONE), missing[number])] = number
    for number in rest:
        role[pool.allowed[number] & (role == NONE)] = number


def _reserved(pool: Pool, number: int, rest: list[int]) -> Mask:
    """Find the groups that a role leaves alone: one before it in `keep` takes all, and draws from other images."""
    reserved = np.zeros(len(pool.order), dtype=np.bool_)
    for other in rest:
        if other < number and not (pool.drawable[other] & pool.drawable[number]).any():
            reserved |= pool.allowed[other]
    return reserved
