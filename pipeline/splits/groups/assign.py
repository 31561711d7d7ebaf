"""Give every group a role: carry over the roles of the previous split, place large groups, then fill up with others."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.recipe import RolePart, SplitPart
from pipeline.splits.groups.pool import UNCOUNTED, Counts, Mask, Pool, requested_counts

Roles = NDArray[np.int8]

NO_ROLE = -1
# A group is large for a role if, of some label, it has more than this fraction of the images that the role still lacks.
_LARGE = 1 / 20

# By group, its images of each label: (label, number of images).
_CountsByGroup = dict[int, list[tuple[int, int]]]


class Assigned(NamedTuple):
    """The roles of groups, and how they came about.

    Attributes:
        role: (G,) int8, number of every group's role, or NO_ROLE.
        requested: by number of a role with a size or a share, (L,) int64 images.
        freed: (G,) bool, groups that lost their role because of a changed setting; all groups, if drawn anew.
    """

    role: Roles
    requested: dict[int, Counts]
    freed: Mask


@dataclass(frozen=True)
class _GroupCounts:
    """How many images a role could draw from every group: one entry per group and label.

    Entries are ordered by label, then by the random order of the groups.

    Attributes:
        group: (e,) int64.
        label: (e,) int64, ascending.
        count: (e,) int64, number of images, 1 or more.
        labels: number of labels.
    """

    group: Counts
    label: Counts
    count: Counts
    labels: int

    def select(self, chosen: Mask | Counts) -> "_GroupCounts":
        """Keep the entries of a mask, (e,) bool, or take them by position, in the given order."""
        return _GroupCounts(self.group[chosen], self.label[chosen], self.count[chosen], self.labels)

    def total(self, groups: Mask) -> Counts:
        """Count the images of some groups, (G,) bool, by label: (L,) int64."""
        chosen = groups[self.group]
        return np.bincount(self.label[chosen], self.count[chosen], self.labels).astype(np.int64)


def assign(spec: SplitPart, pool: Pool, previous: SplitPart | None, image_roles: Roles) -> Assigned:
    """Give every group a role, or none.

    Roles with a size or a share are filled in the order of `keep`, each in the random order of the seed. Roles that
    take all get the groups that are left. So a group that several roles may draw goes to the first of them in `keep`
    that needs it. A role that takes all always needs it: roles after it in `keep` take none of its groups, unless they
    draw from the same images.

    Groups keep the role that they had in the previous split. Settings that have changed take as few groups from their
    role as they can:

    - If the recipe requests less for a role, the groups at the end of the random order lose it.
    - If a role still lacks images after it has taken free groups, it takes groups of roles that take all of the same
      images, and of roles that come later in `keep` and draw from other images. The latter is what `keep` decides
      about groups with images of several sources.
    - A role that takes all takes such groups of later roles in any case.

    Shares of one source that add up to 1 request all of its images. A group that then fits into no role, because whole
    groups do not add up to the requests, goes to the role that lacks most images.

    Args:
        spec: the recipe's `[[split]]`.
        pool: what the split can draw from.
        previous: settings of the previous split; None to draw anew.
        image_roles: (n,) int8, previous role of every image, or NO_ROLE.

    Returns:
        The roles of all groups.

    Raises:
        SplitError: the roles of one source request more images than it has.
    """
    requested = requested_counts(spec, pool)
    counts = {role: _count_groups(pool, role, wanted) for role, wanted in requested.items()}
    role = np.full(len(pool.order), NO_ROLE, dtype=np.int8)
    if previous is None or not continues(spec, previous):
        _fill_roles(pool, role, requested, counts)
        _place_rest(spec, pool, role, requested)
        return Assigned(role, requested, np.ones(len(pool.order), dtype=np.bool_))
    role = _first_allowed_roles(pool, image_roles)
    before = role.copy()
    for number, wanted in requested.items():
        name = pool.roles[number]
        if _requests_less(spec.roles[name], previous.roles[name]):
            role[(role == number) & ~_take(counts[number], role == number, wanted)] = NO_ROLE
    changed = _decides_roles(spec) != _decides_roles(previous)
    if changed:
        _give_to_unlimited(pool, role, requested)
    _fill_roles(pool, role, requested, counts, take=changed)
    _place_rest(spec, pool, role, requested)
    # Without a changed setting no group leaves its role here.
    return Assigned(role, requested, (before != NO_ROLE) & (role != before))


def continues(spec: SplitPart, previous: SplitPart) -> bool:
    """Return whether groups keep their roles. With another seed, rules, roles or sources it is another split."""
    return _identity(spec) == _identity(previous)


def previous_group_roles(spec: SplitPart, pool: Pool, previous: SplitPart | None, image_roles: Roles) -> Roles | None:
    """Return the roles that groups keep if no setting that decides roles has changed: (G,) int8; None for a new draw.

    Args:
        spec: the recipe's `[[split]]`.
        pool: what the split can draw from.
        previous: the settings of the previous split, if there is one.
        image_roles: (n,) int8, number of the role that every image had, or NO_ROLE.
    """
    if previous is None or not continues(spec, previous) or _decides_roles(spec) != _decides_roles(previous):
        return None
    return _first_allowed_roles(pool, image_roles)


def _identity(spec: SplitPart) -> object:
    by_attribute = spec.order, spec.stratify
    return (
        spec.name,
        spec.seed,
        sorted(spec.groups),
        by_attribute,
        {role: part.source_split for role, part in spec.roles.items()},
    )


def _decides_roles(spec: SplitPart) -> object:
    """The settings that decide which role a group goes to if several may draw it."""
    keep = [role for role in spec.keep if role in spec.roles]
    return keep, sorted(spec.protected), {role: (part.size, part.share) for role, part in spec.roles.items()}


def _first_allowed_roles(pool: Pool, image_roles: Roles) -> Roles:
    """Give every group the previous role of its images; if there are several, the first allowed one in `keep`.

    Returns:
        (G,) int8, number of the role, or NO_ROLE.
    """
    roles = np.full(len(pool.order), NO_ROLE, dtype=np.int8)
    for number in reversed(range(len(pool.roles))):
        had_role = np.zeros(len(pool.order), dtype=np.bool_)
        had_role[pool.group[image_roles == number]] = True
        roles[had_role & pool.allowed[number]] = number
    return roles


def _requests_less(now: RolePart, before: RolePart) -> bool:
    """Whether a role requests fewer images than before, or in another way."""
    if now.share is not None and before.share is not None:
        return now.share < before.share
    if now.share is None and before.share is None and now.size != "all" and before.size != "all":
        return now.size < before.size
    return (now.share, now.size) not in ((before.share, before.size), (None, "all"))


def _give_to_unlimited(pool: Pool, role: Roles, requested: dict[int, Counts]) -> None:
    """Give roles that take all the groups that they compete for with later roles; `role` is updated in place."""
    for number in range(len(pool.roles)):
        if number not in requested:
            later = [other for other in range(number + 1, len(pool.roles)) if _compete(pool, number, other)]
            role[pool.allowed[number] & np.isin(role, later)] = number


def _fill_roles(
    pool: Pool, role: Roles, requested: dict[int, Counts], counts: dict[int, _GroupCounts], *, take: bool = False
) -> None:
    """Give free groups a role; `role` is updated in place.

    Args:
        pool: what the split can draw from.
        role: (G,) int8.
        requested: by number of a role with a size or a share, (L,) int64 images.
        counts: by the same numbers, the images of every group.
        take: whether roles that still lack images take groups of other roles; see `assign`.
    """
    unlimited = [number for number in range(len(pool.roles)) if number not in requested]
    for_unlimited: Mask = np.any(pool.allowed[unlimited], axis=0)
    free = {
        number: pool.allowed[number] & ~_reserved(pool, number, unlimited) & (role == NO_ROLE)
        for number in sorted(requested)
    }
    missing = {number: requested[number] - counts[number].total(role == number) for number in free}
    large = _place_large(pool, {number: counts[number] for number in free}, free, missing, for_unlimited)
    for number, groups in large.items():
        role[groups] = number
        missing[number] = missing[number] - counts[number].total(groups)
    for number, groups in free.items():
        role[_take(counts[number], groups & (role == NO_ROLE), missing[number])] = number
        if take:
            # Another role may have taken groups of this one meanwhile, so there may be free groups to replace them.
            for offered in (groups & (role == NO_ROLE), _offered(pool, number, role, unlimited)):
                lacking = requested[number] - counts[number].total(role == number)
                role[_take(counts[number], offered, lacking)] = number
    for number in unlimited:
        role[pool.allowed[number] & (role == NO_ROLE)] = number


def _place_rest(spec: SplitPart, pool: Pool, role: Roles, requested: Mapping[int, Counts]) -> None:
    """Give the groups that are left a role, the largest first, where all images are requested; updates `role`."""
    by_source: dict[str, list[int]] = {}
    for number, name in enumerate(pool.roles):
        by_source.setdefault(spec.roles[name].source_split, []).append(number)
    for numbers in by_source.values():
        shares = [spec.roles[pool.roles[number]].share for number in numbers]
        if not math.isclose(sum(share or 0 for share in shares), 1):
            continue
        sizes = {number: np.bincount(pool.group[pool.drawable[number]], minlength=len(role)) for number in numbers}
        lacks = {number: int(requested[number].sum() - sizes[number][role == number].sum()) for number in numbers}
        rest = np.flatnonzero((role == NO_ROLE) & pool.allowed[numbers].any(axis=0))
        largest = np.max([sizes[number][rest] for number in numbers], axis=0)
        for group in rest[np.lexsort((pool.order[rest], -largest))].tolist():
            chosen = max((number for number in numbers if pool.allowed[number, group]), key=lacks.__getitem__)
            role[group] = chosen
            lacks[chosen] -= int(sizes[chosen][group])


def _reserved(pool: Pool, number: int, unlimited: list[int]) -> Mask:
    """Find groups that a role must not take: an earlier role in `keep` takes all, and draws from other images."""
    reserved = np.zeros(len(pool.order), dtype=np.bool_)
    for other in unlimited:
        if other < number and _compete(pool, other, number):
            reserved |= pool.allowed[other]
    return reserved


def _compete(pool: Pool, role: int, other: int) -> bool:
    """Return whether two roles draw from different images, so that in a group only one of them has kept images."""
    return not (pool.drawable[role] & pool.drawable[other]).any()


def _offered(pool: Pool, number: int, role: Roles, unlimited: list[int]) -> Mask:
    """Find the groups of other roles that a role may take if it lacks images.

    Returns:
        (G,) bool: of roles that take all of the same images, and of later roles in `keep` that compete with it.
    """
    givers = [
        other
        for other in range(len(pool.roles))
        if (other > number if _compete(pool, number, other) else other in unlimited)
    ]
    offered: Mask = pool.allowed[number] & np.isin(role, givers) & ~_reserved(pool, number, unlimited)
    return offered


def _count_groups(pool: Pool, role: int, requested: Counts) -> _GroupCounts:
    """Count the images that a role could draw from every group, without the labels that are not counted there."""
    groups = len(pool.order)
    countable = pool.drawable[role] & (requested != UNCOUNTED)[pool.label]
    positions = pool.order[pool.group[countable]]
    keys, count = np.unique(pool.label[countable].astype(np.int64) * groups + positions, return_counts=True)
    by_order = np.argsort(pool.order, kind="stable")
    return _GroupCounts(by_order[keys % groups], keys // groups, count.astype(np.int64), len(pool.names))


def _place_large(
    pool: Pool,
    counts: Mapping[int, _GroupCounts],
    free: Mapping[int, Mask],
    missing: Mapping[int, Counts],
    for_unlimited: Mask,
) -> dict[int, Mask]:
    """Choose a role for every large free group, the largest first, because what is left for the end may fit nowhere.

    The random number of a group decides. The roles divide the range of numbers by the part of the label's free images
    that each still lacks. So a large group is as likely to be in a role as a small one; if the roles request only a
    part of all images, it is as likely to be in none. If it does not fit into its role, it goes to the role with the
    most room. If it fits nowhere, it is left for the next steps.

    Args:
        pool: what the split can draw from.
        counts: by role with a request, the images of every group.
        free: by role with a request, (G,) bool: the free groups that it may take.
        missing: by role with a request, (L,) int64: the images that it lacks.
        for_unlimited: (G,) bool, groups that a role without a request takes if no other role does.

    Returns:
        By role with a request, (G,) bool: the groups that it gets.
    """
    placed = {role: np.zeros(len(pool.order), dtype=np.bool_) for role in counts}
    large = _large_groups(pool, counts, free, missing)
    if not len(large):
        return placed
    is_large = np.zeros(len(pool.order), dtype=np.bool_)
    is_large[large] = True
    by_group = {role: _by_group(counts[role].select((is_large & free[role])[counts[role].group])) for role in counts}
    lacking = {role: _lacking_parts(counts[role], free[role], missing[role]) for role in counts}
    room = {role: missing[role].tolist() for role in counts}
    numbers = (pool.key[large] / 2.0**64).tolist()
    for group, number, has_unlimited in zip(large.tolist(), numbers, for_unlimited[large].tolist(), strict=True):
        spare = {
            role: min(room[role][label] - count for label, count in groups[group])
            for role, groups in by_group.items()
            if group in groups
        }
        drawn = _draw_role(group, number, by_group, lacking)
        if drawn is None or (spare[drawn] < 0 and has_unlimited):
            continue
        role = drawn if spare[drawn] >= 0 else max(spare, key=spare.__getitem__)
        if spare[role] >= 0:
            placed[role][group] = True
            for label, count in by_group[role][group]:
                room[role][label] -= count
    return placed


def _large_groups(
    pool: Pool, counts: Mapping[int, _GroupCounts], free: Mapping[int, Mask], missing: Mapping[int, Counts]
) -> Counts:
    """List the groups that are large for a role into which they may fit, the largest first."""
    size = np.zeros(len(pool.order), dtype=np.int64)
    for role, offered in counts.items():
        lacks = missing[role][offered.label]
        is_large = (
            free[role][offered.group] & (offered.count > np.maximum(_LARGE * lacks, 1)) & (offered.count <= lacks)
        )
        np.maximum.at(size, offered.group[is_large], offered.count[is_large])
    groups = np.flatnonzero(size)
    by_size: Counts = groups[np.lexsort((pool.order[groups], -size[groups]))]
    return by_size


def _by_group(counts: _GroupCounts) -> _CountsByGroup:
    found: _CountsByGroup = {}
    for group, label, count in zip(counts.group.tolist(), counts.label.tolist(), counts.count.tolist(), strict=True):
        found.setdefault(group, []).append((label, count))
    return found


def _lacking_parts(counts: _GroupCounts, free: Mask, missing: Counts) -> list[float]:
    """Compute, for every label, the part of the free images that the role still lacks."""
    parts: list[float] = (np.maximum(missing, 0) / np.maximum(counts.total(free), 1)).tolist()
    return parts


def _draw_role(
    group: int, number: float, by_group: Mapping[int, _CountsByGroup], lacking: Mapping[int, list[float]]
) -> int | None:
    """Find the role in whose part of the range 0 to 1 the group's random number lies; None if in no role's."""
    end = 0.0
    for role, groups in by_group.items():
        if group in groups:
            label, _ = max(groups[group], key=lambda entry: (entry[1], -entry[0]))
            end += lacking[role][label]
            if number < end:
                return role
    return None


def _take(counts: _GroupCounts, free: Mask, missing: Counts) -> Mask:
    """Choose free groups for a role.

    Groups are taken in random order; a group with too many images of any label is skipped. If a label then still lacks
    images, one more group is taken if that brings it closer to its request. So, if groups have one label each and there
    are enough of them, a label ends at most half of its largest group away from its request, and meets it exactly if
    there are enough single images.

    Args:
        counts: the images of every group.
        free: (G,) bool, groups that may be taken.
        missing: (L,) int64, images that the role lacks; negative if it has too many already.

    Returns:
        (G,) bool, the groups taken.
    """
    taken = np.zeros(len(free), dtype=np.bool_)
    left = missing.copy()
    offered = counts.select(free[counts.group])
    _take_fitting(offered, taken, left)
    offered = offered.select(~taken[offered.group])
    several_labels = np.bincount(offered.group, minlength=len(free))[offered.group] > 1
    _take_nearest(offered.select(~several_labels), taken, left)
    _take_nearest(offered.select(several_labels), taken, left)
    return taken


def _take_fitting(offered: _GroupCounts, taken: Mask, left: Counts) -> None:
    """Take groups that fit, a prefix of every label at a time; `taken` and `left` are updated in place.

    Every round takes at least the first of all groups that fit. `left` only decreases, so a group that does not fit now
    will never fit.
    """
    while len(offered.group):
        fits = np.ones(len(taken), dtype=np.bool_)
        fits[offered.group[offered.count > left[offered.label]]] = False
        offered = offered.select(fits[offered.group])
        now = _prefix(offered, left, len(taken))
        left -= offered.total(now)
        taken |= now
        offered = offered.select(~now[offered.group])


def _take_nearest(offered: _GroupCounts, taken: Mask, left: Counts) -> None:
    """Take groups that bring labels closer to their request, the best first; both arrays are updated in place.

    Groups that fill one label while they add to another that is full are taken many at a time, as long as they do not
    overfill the first: until then each is worth as much as it is alone. If there are no such groups, the best group of
    every label is taken, and the label is full. So there are not many more rounds than labels.
    """
    while len(offered.group):
        gap = left[offered.label]
        gains = np.bincount(offered.group, np.abs(gap) - np.abs(gap - offered.count), len(taken))
        offered = offered.select(gains[offered.group] > 0)
        offered = offered.select(np.lexsort((-gains[offered.group], offered.label)))
        now = _prefix(offered, np.where(left > 0, left, np.iinfo(np.int64).max), len(taken))
        if not now.any():
            now = _first_of_labels(offered, len(taken))
        left -= offered.total(now)
        taken |= now
        offered = offered.select(~now[offered.group])


def _prefix(offered: _GroupCounts, room: Counts, groups: int) -> Mask:
    """Choose the groups that come, in every label they have, before the label's room is used up."""
    sums = np.cumsum(offered.count)
    starts = np.searchsorted(offered.label, np.arange(offered.labels))
    before = np.concatenate([[0], sums])[starts]
    chosen = np.zeros(groups, dtype=np.bool_)
    chosen[offered.group] = True
    chosen[offered.group[sums - before[offered.label] > room[offered.label]]] = False
    return chosen


def _first_of_labels(offered: _GroupCounts, groups: int) -> Mask:
    """Choose the groups that come first in every label they have."""
    _, first = np.unique(offered.label, return_index=True)
    leads = np.bincount(offered.group[first], minlength=groups)
    mask: Mask = (leads > 0) & (leads == np.bincount(offered.group, minlength=groups))
    return mask
