"""Fill a role with whole groups, in the order of the seed, until every label has what it asks for or nothing fits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.splits.groups.pool import Mask, Pool
from pipeline.splits.groups.targets import UNCOUNTED, Counts

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
