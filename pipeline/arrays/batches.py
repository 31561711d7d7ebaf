"""Batches of an epoch, one after the other, and how far they have come."""

from collections.abc import Iterator, Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays.windows import Window
from pipeline.errors import FeedError

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]
State = dict[str, str | int | bool]

DONE = "batches_done"


class Batches(Iterator[Batch]):
    """The batches of an epoch; made by `Feed.epoch`. Every batch is an array of its own, to be written to at will.

    Args:
        parts: the batches that are left.
        about: what the epoch is of: all that its order depends on.
        done: batches that have been handed out before.
    """

    def __init__(self, parts: Iterator[Batch], about: Mapping[str, str | int | bool], done: int) -> None:
        self._parts, self._about, self._done = parts, about, done

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        batch = next(self._parts)
        self._done += 1
        return batch

    def state(self) -> State:
        """Tell how far the epoch has come, as JSON can hold it: `Feed.epoch` goes on from there."""
        return {**self._about, DONE: self._done}


def done(state: Mapping[str, str | int | bool] | None, about: Mapping[str, str | int | bool], most: int) -> int:
    """Read from a state how many batches have been handed out; 0 without one. There are `most` of them.

    Raises:
        FeedError: the state is of another feed or epoch.
    """
    if state is None:
        return 0
    if not isinstance(state, Mapping) or DONE not in state:
        raise FeedError(f"the state is damaged: it has no {DONE}. Use one that `state()` made.")
    wrong = [
        f"{key} is {about[key]!r}, in the state {state.get(key)!r}" for key in about if state.get(key) != about[key]
    ]
    if wrong:
        raise FeedError(f"the state is of other batches: {'; '.join(wrong)}. Ask for what it was saved from.")
    found = state[DONE]
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= most:
        raise FeedError(f"the state is damaged: {DONE} is {found!r}. Use one that `state()` made.")
    return found


def cut(held: Iterator[Window], batch_size: int) -> Iterator[Batch]:
    """Cut windows into batches; one that begins in a window may end in another.

    Args:
        held: windows, in the order in which they are handed out.
        batch_size: images in every batch but the last.

    Yields:
        (batch, height, width[, 3]) uint8 and (batch,) int64.
    """
    begun: list[Batch] = []
    missing = batch_size
    for window in held:
        at = 0
        while at < len(window.order):
            begun.append(_take(window, window.order[at : at + missing]))
            at += missing
            missing -= len(begun[-1][1])
            if not missing:
                yield _joined(begun)
                begun, missing = [], batch_size
        # Dropped before the next one is asked for: two windows are all that is held.
        del window
    if begun:
        yield _joined(begun)


def _take(window: Window, rows: NDArray[np.int64]) -> Batch:
    # Faster than indexing; mode="clip" only saves a check, as rows are made here.
    return np.take(window.pixels, rows, axis=0, mode="clip"), window.labels[rows]


def _joined(begun: list[Batch]) -> Batch:
    if len(begun) == 1:
        return begun[0]
    return np.concatenate([pixels for pixels, _ in begun]), np.concatenate([labels for _, labels in begun])
