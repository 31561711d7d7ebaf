"""Place large groups before all others: what is left for the end may fit nowhere."""

from collections.abc import Mapping

import numpy as np

from pipeline.splits.groups.fill import Entries, Order
from pipeline.splits.groups.pool import Mask, Pool
from pipeline.splits.groups.targets import Counts

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
