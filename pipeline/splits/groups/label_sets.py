"""Stratify over several labels per image: every role gets its share of every label, as closely as whole groups allow.

References:
    Sechidis, Tsoumakas and Vlahavas 2011, On the Stratification of Multi-Label Data (iterative stratification).
"""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array

from pipeline.recipe import SplitPart
from pipeline.splits.groups.assign import NO_ROLE, Assigned, Roles
from pipeline.splits.groups.pool import Counts, Pool, requested_totals

# Kinds of groups that are compared with one another at once.
_BLOCK = 256
# Loads are whole numbers of at most this size, so that sums are exact and do not depend on their order.
_MAX_LOAD = 2**62


class Stratified(NamedTuple):
    """The roles of groups, stratified over the labels of an attribute.

    Attributes:
        assigned: the role of every group.
        requested: by role, the images that it requests.
        labels: columns role, label, requested, got: images with each label that every role requests and got.
        without: images of the pool without a label.
    """

    assigned: Assigned
    requested: dict[str, int]
    labels: pl.DataFrame
    without: int


class _Kinds(NamedTuple):
    """The K kinds of groups: those of a kind have equally many images, and equally many of each of the L labels.

    Attributes:
        counts: (K, L + 1) int64, images of one group with each label; last, all of its images.
        groups: by kind, its groups in the random order of the seed.
    """

    counts: csr_array
    groups: pl.Series


def assign_label_sets(spec: SplitPart, pool: Pool, values: pl.DataFrame, previous: Roles | None) -> Stratified:
    """Give every group a role by iterative stratification.

    The label with the fewest images left is next, and its groups are distributed. Groups with the same labels are
    interchangeable: they are distributed together, in the random order of the seed. Groups without a label come last.
    Where the paper looks at one label and at numbers of images, this looks at all labels of a group and at the part of
    its request that each role already has. See docs/decisions/0041-order-and-label-sets.md.

    Args:
        spec: the recipe's `[[split]]`, with `stratify`. All roles draw from the same images.
        pool: what the split can draw from.
        values: columns image_id and value: the labels, of any type, each label of an image once.
        previous: (G,) int8, the roles that groups keep, or NO_ROLE; None for a new draw.

    Raises:
        SplitError: the roles request more images than there are.
    """
    count = len(pool.group)
    requested = requested_totals(spec, pool.roles, count)
    members = _members(pool, values)
    counts = _counts(pool, members)
    role = np.full(len(pool.order), NO_ROLE, dtype=np.int8) if previous is None else previous.copy()
    # What no role requests is a part like the roles, so that the roles are stratified nevertheless.
    size = np.array([*requested.values(), count - sum(requested.values())])
    parts = np.flatnonzero(size)
    # The last part has no groups yet.
    taken = np.array([counts[role == part].sum(axis=0) for part in parts]).reshape(len(parts), counts.shape[1])
    kinds = _kinds(pool, counts, role == NO_ROLE)
    shares = _distribute(kinds, taken, size[parts])
    numbers = np.where(parts < len(requested), parts, NO_ROLE).astype(np.int8)
    role[kinds.groups.explode().to_numpy()] = np.repeat(np.tile(numbers, len(shares)), shares.ravel())
    assigned = Assigned(role, {}, np.full(len(role), previous is None))
    without = count - members["image"].n_unique()
    return Stratified(assigned, requested, _requested_and_got(pool, role, members, requested, count), without)


def _distribute(kinds: _Kinds, taken: Counts, size: Counts) -> Counts:
    """Distribute the groups of every kind over the parts.

    Each group goes to the part with the smallest load. The load of a part, for a group, is a sum over the labels of the
    group, and over one more label that all images have, divided by the number of images that the part requests. A label
    adds

        images with the label in the group * images with the label in the part / all images with the label

    The loads of a block of kinds are computed together. A kind that is distributed then adds to the loads of the others
    in its block, by how many labels they have in common.

    Args:
        kinds: the groups.
        taken: (P, L + 1) int64, images that every part has before; those with each label, then all.
        size: (P,) int64, images that every part requests; more than 0.

    Returns:
        (K, P) int64, how many groups of every kind each part gets.
    """
    counts, number = kinds.counts, kinds.groups.list.len().cast(pl.Int64).to_numpy()
    total = taken.sum(axis=0) + counts.T @ number
    weight = _MAX_LOAD // max(1, counts.sum(axis=1).max(initial=0)) // np.maximum(1, total)
    shares = np.zeros((len(number), len(size)), dtype=np.int64)
    order = _in_order(counts, number)
    for block in np.split(order, range(_BLOCK, len(order), _BLOCK)):
        own = counts[block]
        weighted = csr_array((own.data * weight[own.indices], own.indices, own.indptr), shape=own.shape)
        links = weighted @ own.T.toarray()
        loads = np.ascontiguousarray((weighted @ taken.T).T)
        for at, groups in enumerate(number[block].tolist()):
            load = loads[:, at] / size
            if groups == 1:
                # The same as below, for speed: with many labels, most kinds have one group.
                part = load.argmin()
                shares[block[at], part] = 1
                loads[part] += links[at]
            else:
                later = load[:, None] + (links[at, at] / size)[:, None] * np.arange(groups)
                owners = np.argsort(later.ravel(), kind="stable")[:groups] // groups
                shares[block[at]] = np.bincount(owners, minlength=len(size))
                loads += np.outer(shares[block[at]], links[at])
        taken = taken + (own.T @ shares[block]).T
    return shares


def _in_order(counts: csr_array, number: Counts) -> Counts:
    """Put the kinds in order: all kinds of the label with the fewest images left are next; last, those without one."""
    images = csr_array(counts[:, :-1] * number[:, None])
    left, by_label = images.sum(axis=0), images.tocsc()
    waiting = np.ones(len(number), dtype=np.bool_)
    order = [np.zeros(0, dtype=np.int64)]
    while left.any():
        rarest = np.where(left > 0, left, np.iinfo(np.int64).max).argmin()
        found = by_label.indices[by_label.indptr[rarest] : by_label.indptr[rarest + 1]]
        order.append(found[waiting[found]])
        waiting[order[-1]] = False
        left -= images[order[-1]].sum(axis=0)
    return np.concatenate([*order, np.flatnonzero(waiting)])


def _members(pool: Pool, values: pl.DataFrame) -> pl.DataFrame:
    """List the labels of every image of the pool: columns image (its position), group, value (text)."""
    images = pool.images.select("image_id", image=pl.int_range(pl.len()), group=pl.Series(pool.group))
    texts = values.drop_nulls().select("image_id", pl.col("value").cast(pl.String))
    found = images.join(texts, on="image_id", how="inner").drop("image_id")
    # Compared as numbers, in the order of the texts.
    names = pl.Enum(found["value"].unique().sort())
    return found.with_columns(pl.col("value").cast(names))


def _counts(pool: Pool, members: pl.DataFrame) -> csr_array:
    """Count the images of every group: (G, L + 1) int64, with each label, then all."""
    labels = members["value"].n_unique()
    groups = np.concatenate([members["group"].to_numpy(), pool.group])
    columns = np.concatenate([members["value"].to_physical().to_numpy(), np.full(len(pool.group), labels)])
    return csr_array((np.ones(len(groups), dtype=np.int64), (groups, columns)), shape=(len(pool.order), labels + 1))


def _kinds(pool: Pool, counts: csr_array, waits: NDArray[np.bool_]) -> _Kinds:
    """List the kinds of groups that wait for a role: larger groups first, then by the order of their first group."""
    # Groups with the same counts have the same two sums of 64 bits; others have not, but for one case in 2**128.
    factors = np.random.default_rng(0).integers(2**64, size=(counts.shape[1], 2), dtype=np.uint64)
    first, second = (counts.astype(np.uint64) @ factors).T
    kinds = (
        pl.DataFrame({"order": pool.order, "size": counts[:, [-1]].toarray()[:, 0], "first": first, "second": second})
        .with_row_index("group")
        .filter(waits)
        .sort("order")
        .group_by("first", "second", maintain_order=True)
        .agg("group", pl.first("size", "order"))
        .sort("size", "order", descending=[True, False])
    )
    return _Kinds(counts[kinds["group"].list.first().to_numpy()], kinds["group"])


def _requested_and_got(
    pool: Pool, role: Roles, members: pl.DataFrame, requested: dict[str, int], count: int
) -> pl.DataFrame:
    """Count the images with each label that every role requests and got: columns role, label, requested, got."""
    # Products of two counts need 64 bits.
    total = members.group_by("value").agg(all=pl.len().cast(pl.Int64))
    numbers = members.with_columns(number=pl.Series(role[members["group"].to_numpy()], dtype=pl.Int8))
    got = numbers.group_by("number", "value").len("got")
    frames = [
        total.join(got.filter(number=number).drop("number"), on="value", how="left").select(
            role=pl.lit(name),
            label=pl.col("value").cast(pl.String),
            requested=(pl.col("all") * requested[name] / max(1, count)).round().cast(pl.Int64),
            got=pl.col("got").fill_null(0).cast(pl.Int64),
        )
        for number, name in enumerate(pool.roles)
    ]
    return pl.concat(frames).sort("role", "label")
