"""How many images of every label a role asks for."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SplitError
from pipeline.recipe import SplitPart
from pipeline.splits.draw import quotas, too_few
from pipeline.splits.groups.pool import Pool

Counts = NDArray[np.int64]

UNCOUNTED = -1


def targets(spec: SplitPart, pool: Pool) -> dict[int, Counts]:
    """Share out what the roles with a size or a share ask for.

    A size is shared out evenly over the classes, as `draw_roles` does it. A share is proportional: less than two images
    from share times the label's images, and in all within one of the share of all. Shares of one source leave no gap
    between them: if they add up to 1, all images are asked for. Roles that take all have no target.

    Args:
        spec: the recipe's `[[split]]`.
        pool: what it may draw from.

    Returns:
        By number of the role, (L,) int64; UNCOUNTED for images without a label where a size is shared out over classes.

    Raises:
        SplitError: the roles of one source ask for more than it has, whatever the groups.
    """
    have = {number: _counts(pool, number) for number in range(len(pool.roles))}
    sources: dict[str, list[int]] = {}
    for number, role in enumerate(pool.roles):
        if spec.roles[role].share is not None or spec.roles[role].size != "all":
            sources.setdefault(spec.roles[role].source_split, []).append(number)
    asked: dict[int, Counts] = {}
    for numbers in sources.values():
        shared = [number for number in numbers if spec.roles[pool.roles[number]].share is not None]
        asked.update(_shares(spec, pool, shared, have))
        asked.update({number: _quotas(spec, pool, number, have[number]) for number in numbers if number not in shared})
        _check(spec, pool, {number: asked[number] for number in numbers}, have)
    return asked


def _counts(pool: Pool, role: int) -> Counts:
    return np.bincount(pool.label[pool.drawable[role]], minlength=len(pool.names)).astype(np.int64)


def _quotas(spec: SplitPart, pool: Pool, number: int, have: Counts) -> Counts:
    size = spec.roles[pool.roles[number]].size
    classes = [name for name, count in zip(pool.names, have, strict=True) if count and name is not None]
    each = quotas(int(size), classes or [None])
    if classes:
        each[None] = UNCOUNTED
    return np.array([each.get(name, 0) for name in pool.names], dtype=np.int64)


def _shares(spec: SplitPart, pool: Pool, numbers: list[int], have: Mapping[int, Counts]) -> dict[int, Counts]:
    """Round the sums of the first shares, label by label, so that each share is the step from one sum to the next."""
    asked: dict[int, Counts] = {}
    share, done = 0.0, np.zeros(len(pool.names), dtype=np.int64)
    for number in numbers:
        share += spec.roles[pool.roles[number]].share or 0.0
        if share > 1 + 1e-9:
            source = spec.roles[pool.roles[number]].source_split
            raise SplitError(f"split '{spec.name}': the shares of '{source}' add up to {share:g}. Ask for at most 1.")
        ideal = np.minimum(share * have[number], have[number])
        total = np.maximum(np.floor(ideal).astype(np.int64), done)
        missing = max(0, round(share * int(have[number].sum())) - int(total.sum()))
        by_remainder = np.argsort(total - ideal, kind="stable")
        total[by_remainder[total[by_remainder] < ideal[by_remainder]][:missing]] += 1
        asked[number], done = total - done, total
    return asked


def _check(spec: SplitPart, pool: Pool, asked: Mapping[int, Counts], have: Mapping[int, Counts]) -> None:
    taken = np.zeros(len(pool.names), dtype=np.int64)
    for number, counts in asked.items():
        wanted = np.maximum(counts, 0)
        left = have[number] - taken
        if (wanted > left).any():
            part = spec.roles[pool.roles[number]]
            listed = [i for i, count in enumerate(wanted) if count]
            raise SplitError(
                too_few(
                    spec.name,
                    pool.roles[number],
                    part,
                    {pool.names[i]: int(wanted[i]) for i in listed},
                    {pool.names[i]: max(0, int(left[i])) for i in listed},
                )
            )
        taken += wanted
