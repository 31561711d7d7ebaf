"""groups -> roles: whoever had a role keeps it, the others fill what is missing.

Fill a role with whole groups, in the order of the seed, until every label has what it asks for or nothing fits.

Place large groups before all others: what is left for the end may fit nowhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.recipe import SplitPart
from pipeline.splits.groups.pool import (
    NONE,
    UNCOUNTED,
    Before,
    Counts,
    Mask,
    Pool,
    Roles,
    asks_for_less,
    groups_before,
    roles_before,
    still_holds,
    targets,
)

Order = NDArray[np.int64]


@dataclass(frozen=True)
class Entries:
    """What every group would bring to a role: one entry a group and label, by label and then by order of the seed.

    Attributes:
        group: (e,) int64.
        label: (e,) int64, ascending.
        count: (e,) int64, 1 or more: images.
        labels: how many labels there are.
    """

    group: Order
    label: Order
    count: Order
    labels: int

    def only(self, chosen: Mask | Order) -> "Entries":
        """Keep the entries that are chosen, (e,) bool, or pick them by position, in the order given."""
        return Entries(self.group[chosen], self.label[chosen], self.count[chosen], self.labels)

    def total(self, groups: Mask) -> Counts:
        """Count the images, (L,) int64, of some groups, (G,) bool."""
        chosen = groups[self.group]
        return np.bincount(self.label[chosen], self.count[chosen], self.labels).astype(np.int64)


def entries_of(pool: Pool, role: int, asked: Counts | None) -> Entries:
    """Count what every group would bring to a role; labels that are not counted there have no entries."""
    groups = len(pool.order)
    may = pool.drawable[role]
    if asked is not None:
        may = may & (asked != UNCOUNTED)[pool.label]
    keys, count = np.unique(pool.label[may].astype(np.int64) * groups + pool.order[pool.group[may]], return_counts=True)
    by_order = np.argsort(pool.order, kind="stable")
    return Entries(by_order[keys % groups], keys // groups, count.astype(np.int64), len(pool.names))


def take(entries: Entries, free: Mask, missing: Counts) -> Mask:
    """Choose free groups for a role.

    Groups are taken in the order of the seed; one that would bring too much of any label is passed over. Where a label
    then still misses some, one more group is taken if that brings it nearer to what it asks for. So with groups of one
    label each, and enough of them, a label ends at most half of its largest group away from what it asks for, and
    hits it where there are single images enough.

    Args:
        entries: what every group would bring.
        free: (G,) bool, groups that may be taken.
        missing: (L,) int64, images that the role lacks; negative where it has too many already.

    Returns:
        (G,) bool, the groups taken.
    """
    taken = np.zeros(len(free), dtype=np.bool_)
    left = missing.copy()
    offered = entries.only(free[entries.group])
    _fitting(offered, taken, left)
    offered = offered.only(~taken[offered.group])
    several = np.bincount(offered.group, minlength=len(free))[offered.group] > 1
    _nearest(offered.only(~several), taken, left)
    _nearest(offered.only(several), taken, left)
    return taken


def _fitting(offered: Entries, taken: Mask, left: Counts) -> None:
    """Take what fits, a prefix of every label at a time; `taken` and `left` are brought up to date in place.

    Every round takes at least the first group of all that fit. As `left` only falls, what does not fit never will.
    """
    while len(offered.group):
        fits = np.ones(len(taken), dtype=np.bool_)
        fits[offered.group[offered.count > left[offered.label]]] = False
        offered = offered.only(fits[offered.group])
        now = _prefix(offered, left, len(taken))
        left -= offered.total(now)
        taken |= now
        offered = offered.only(~now[offered.group])


def _nearest(offered: Entries, taken: Mask, left: Counts) -> None:
    """Take groups that bring the labels nearer to what they ask for, the best first; both are changed in place.

    Groups that fill a label up while they add to another that is full are taken many at a time, as long as they do not
    fill it beyond what it lacks: so far each is worth what it is worth alone. Where there are none, the best group of
    every label is taken, and the label is full. So there are not many more rounds than labels.
    """
    while len(offered.group):
        gap = left[offered.label]
        gains = np.bincount(offered.group, np.abs(gap) - np.abs(gap - offered.count), len(taken))
        offered = offered.only(gains[offered.group] > 0)
        offered = offered.only(np.lexsort((-gains[offered.group], offered.label)))
        now = _prefix(offered, np.where(left > 0, left, np.iinfo(np.int64).max), len(taken))
        if not now.any():
            now = _leading(offered, len(taken))
        left -= offered.total(now)
        taken |= now
        offered = offered.only(~now[offered.group])


def _prefix(offered: Entries, room: Counts, groups: int) -> Mask:
    """Choose the groups that lie, in every label they have, before the place where its room is used up."""
    sums = np.cumsum(offered.count)
    starts = np.searchsorted(offered.label, np.arange(offered.labels))
    before = np.concatenate([[0], sums])[starts]
    chosen = np.zeros(groups, dtype=np.bool_)
    chosen[offered.group] = True
    chosen[offered.group[sums - before[offered.label] > room[offered.label]]] = False
    return chosen


def _leading(offered: Entries, groups: int) -> Mask:
    """Choose the groups that come first in every label they have."""
    _, first = np.unique(offered.label, return_index=True)
    leads = np.bincount(offered.group[first], minlength=groups)
    mask: Mask = (leads > 0) & (leads == np.bincount(offered.group, minlength=groups))
    return mask


# A group is large where it brings more than this part of what a role still misses of a label.
_LARGE = 1 / 20

_Brings = dict[int, list[tuple[int, int]]]


def place_large(
    pool: Pool, entries: Mapping[int, Entries], may: Mapping[int, Mask], missing: Mapping[int, Counts], taken: Mask
) -> dict[int, Mask]:
    """Choose a role for every large group that is free, the largest first.

    A group's random number decides: the roles divide the numbers up by the part of the label's free images that each
    still misses, so a large group is as likely in a role as a small one, and where the roles ask for a part of all
    images only, as likely in none. Where it does not fit there, it goes where there is most room; where it fits
    nowhere, it is left for those that follow.

    Args:
        pool: what the split may draw from.
        entries: by role with a target, what every group would bring.
        may: by role with a target, (G,) bool: the free groups that it may take.
        missing: by role with a target, (L,) int64: the images that it lacks.
        taken: (G,) bool, groups that a role without a target takes if no other does.

    Returns:
        By role with a target, (G,) bool: the groups that it gets.
    """
    placed = {role: np.zeros(len(pool.order), dtype=np.bool_) for role in entries}
    large = _large(pool, entries, may, missing)
    if not len(large):
        return placed
    chosen = np.zeros(len(pool.order), dtype=np.bool_)
    chosen[large] = True
    brings = {role: _brings(entries[role].only((chosen & may[role])[entries[role].group])) for role in entries}
    parts = {role: _parts(entries[role], may[role], missing[role]) for role in entries}
    room = {role: missing[role].tolist() for role in entries}
    numbers = (pool.place[large] / 2.0**64).tolist()
    for group, number, spare in zip(large.tolist(), numbers, taken[large].tolist(), strict=True):
        fits = {
            role: min(room[role][label] - count for label, count in found[group])
            for role, found in brings.items()
            if group in found
        }
        wish = _wish(group, number, brings, parts)
        if wish is None or (fits[wish] < 0 and spare):
            continue
        role = wish if fits[wish] >= 0 else max(fits, key=fits.__getitem__)
        if fits[role] >= 0:
            placed[role][group] = True
            for label, count in brings[role][group]:
                room[role][label] -= count
    return placed


def _large(pool: Pool, entries: Mapping[int, Entries], may: Mapping[int, Mask], missing: Mapping[int, Counts]) -> Order:
    """List the groups that are large for a role into which they may fit, the largest first."""
    size = np.zeros(len(pool.order), dtype=np.int64)
    for role, found in entries.items():
        lacks = missing[role][found.label]
        large = may[role][found.group] & (found.count > np.maximum(_LARGE * lacks, 1)) & (found.count <= lacks)
        np.maximum.at(size, found.group[large], found.count[large])
    groups = np.flatnonzero(size)
    by_size: Order = groups[np.lexsort((pool.order[groups], -size[groups]))]
    return by_size


def _brings(entries: Entries) -> _Brings:
    found: _Brings = {}
    for group, label, count in zip(entries.group.tolist(), entries.label.tolist(), entries.count.tolist(), strict=True):
        found.setdefault(group, []).append((label, count))
    return found


def _parts(entries: Entries, may: Mask, missing: Counts) -> list[float]:
    """Tell of every label which part of the free images the role still misses."""
    parts: list[float] = (np.maximum(missing, 0) / np.maximum(entries.total(may), 1)).tolist()
    return parts


def _wish(group: int, number: float, brings: Mapping[int, _Brings], parts: Mapping[int, list[float]]) -> int | None:
    reach = 0.0
    for role, found in brings.items():
        if group in found:
            label, _ = max(found[group], key=lambda entry: (entry[1], -entry[0]))
            reach += parts[role][label]
            if number < reach:
                return role
    return None


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
