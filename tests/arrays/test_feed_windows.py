import threading
import time
import weakref
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import pytest
from feeding import BYTES, Pictures, feed_of, images_of, shown
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.arrays import epoch as epochs
from pipeline.lake_handle import Lake
from pipeline.pixels import DecodedGroups, Located, gather

LARGEST_GROUP = 90


class Spy:
    """Reads as `gather` does, and counts the images that it read and those of them that are still held."""

    def __init__(self) -> None:
        self.read, self.held, self.most = 0, 0, 0
        self._lock = threading.Lock()

    def __call__(self, where: Located, decoded: DecodedGroups | None) -> NDArray[np.uint8]:
        with self._lock:
            self.read += len(where)
            self.held += len(where)
            self.most = max(self.most, self.held)
        pixels = gather(where, decoded)
        # The array that owns the memory: it goes when the last view of it does.
        assert pixels.base is not None
        weakref.finalize(pixels.base, self._gone, len(where))
        return pixels

    def _gone(self, count: int) -> None:
        with self._lock:
            self.held -= count


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    """Count what windows read."""
    counting = Spy()
    monkeypatch.setattr(epochs, "gather", counting)
    return counting


class AtOnce(ThreadPoolExecutor):
    """Reads before it goes on, as a thread may that is given all the time: the most that can be held is."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        done = super().submit(fn, *args, **kwargs)
        wait([done])
        return done


@pytest.mark.parametrize("executor", [ThreadPoolExecutor, AtOnce])
@pytest.mark.parametrize("room", [180, 200, 250, 390])
def test_at_most_the_buffer_is_held(
    pictures: Pictures, spy: Spy, monkeypatch: pytest.MonkeyPatch, room: int, executor: type[ThreadPoolExecutor]
) -> None:
    monkeypatch.setattr(epochs, "ThreadPoolExecutor", executor)
    feed = feed_of(images_of(pictures, np.arange(400)), 7, buffer_bytes=room * BYTES)
    for epoch in range(5):
        # Batches are kept: they are arrays of their own.
        assert len(shown(list(feed.epoch(epoch)), pictures)) == 400
    assert spy.read == 5 * 400
    assert spy.most <= room
    assert spy.held == 0


def test_the_next_window_is_read_while_this_one_is_used(pictures: Pictures, spy: Spy) -> None:
    begun = feed_of(images_of(pictures, np.arange(400)), 1, buffer_bytes=180 * BYTES).epoch(0)
    next(begun)
    patience = time.monotonic() + 60
    while spy.read <= LARGEST_GROUP and time.monotonic() < patience:
        time.sleep(0.01)
    assert spy.read > LARGEST_GROUP
    assert sum(1 for _ in begun) == 399


def test_a_row_group_larger_than_the_buffer_is_a_window(pictures: Pictures, spy: Spy) -> None:
    feed = feed_of(images_of(pictures, np.arange(400)), 7, buffer_bytes=1)
    assert sorted(shown(feed.epoch(0), pictures)) == list(range(400))
    assert spy.most <= 2 * LARGEST_GROUP


def test_an_epoch_that_is_left_alone_reads_no_further(pictures: Pictures, spy: Spy) -> None:
    begun = feed_of(images_of(pictures, np.arange(400)), 7, buffer_bytes=180 * BYTES).epoch(0)
    assert spy.read == 0
    next(begun)
    del begun
    assert spy.held == 0
    assert spy.read <= 180


def test_what_was_handed_out_is_not_read_again(pictures: Pictures, spy: Spy) -> None:
    feed = feed_of(images_of(pictures, np.arange(400)), 10, buffer_bytes=180 * BYTES)
    begun = feed.epoch(0)
    for _ in range(30):
        next(begun)
    state = begun.state()
    del begun
    spy.read = 0
    assert sum(len(y) for _, y in feed.epoch(0, state=state)) == 100
    assert spy.read <= 100 + 90
    spy.read = 0
    assert list(feed.epoch(0, state={**state, "batches_done": 40})) == []
    assert spy.read == 0


def test_ranks_read_row_groups_of_their_own(pictures: Pictures, spy: Spy) -> None:
    images = images_of(pictures, np.arange(400))
    for rank in range(4):
        list(feed_of(images, 10, buffer_bytes=180 * BYTES, rank=rank, world_size=4).epoch(0))
    assert spy.read == 400


def test_an_image_comes_anywhere_in_the_epoch(pictures: Pictures) -> None:
    feed = feed_of(images_of(pictures, np.arange(400)), 10, buffer_bytes=180 * BYTES)
    places = [shown(feed.epoch(epoch), pictures).index(399) for epoch in range(30)]
    assert min(places) < 100
    assert max(places) > 300


def test_a_first_window_reads_little_where_few_images_of_a_group_are_wanted(pictures: Pictures, spy: Spy) -> None:
    # Every tenth: 40 wanted images, 20 of which a window holds, in the row groups of 200.
    feed = feed_of(images_of(pictures, np.arange(0, 400, 10)), 1, buffer_bytes=39 * BYTES)
    cut = epochs.plan_windows(*(np.array([2, 2, 2, 2, 2]), np.array([9, 9, 9, 9, 9])), range(10), 19)
    assert [len(parts) for parts in cut] == [2, 3]
    assert sorted(shown(feed.epoch(0), pictures)) == list(range(0, 400, 10))
    assert spy.most <= 2 * 19


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(0, 9), st.integers(0, 120), st.integers(0, 120))
def test_windows_are_the_places_once_and_no_larger_than_they_may(
    sizes: list[int], room: int, start: int, count: int
) -> None:
    wanted = np.array(sizes, dtype=np.int64)
    places = range(sum(sizes))[start : start + count]
    cut = epochs.plan_windows(wanted, 2 * wanted, places, room)
    begins = (np.cumsum(wanted) - wanted).tolist()
    assert [begins[group] + at for parts in cut for group, *span in parts for at in range(*span)] == list(places)
    assert all(len(parts) == 1 or sum(stop - low for _, low, stop in parts) <= room for parts in cut)


@pytest.mark.parametrize(
    ("lake", "size", "buffer"),
    [("small_lake", 9, 2**12), pytest.param("notmnist_lake", 500, 4 * 2**20, marks=pytest.mark.stress)],
)
def test_a_lake_larger_than_the_buffer_is_shown_once(
    request: pytest.FixtureRequest, lake: str, size: int, buffer: int
) -> None:
    opened = Lake(request.getfixturevalue(lake).root)
    feed = opened.feed("main", "test", batch_size=size, seed=1, buffer_bytes=buffer)
    assert not feed.held_whole
    pixels, labels = opened.arrays("main", "test")
    every = Counter(zip(map(bytes, pixels), labels.tolist(), strict=True))
    for epoch in range(2):
        found = Counter[tuple[bytes, int]]()
        for images, classes in feed.epoch(epoch):
            found.update(zip(map(bytes, images), classes.tolist(), strict=True))
        assert found == every


def test_what_a_window_shows_first_stays_what_it_is(pictures: Pictures) -> None:
    images = images_of(pictures, np.arange(400))
    feed = feed_of(images, 10, seed=5, buffer_bytes=180 * BYTES)
    last = feed_of(images, 10, seed=5, buffer_bytes=180 * BYTES, rank=2, world_size=3)
    assert next(last.epoch(2))[1].tolist() == [240, 241, 233, 225, 258, 210, 222, 215, 249, 226]
    assert next(feed.epoch(2))[1].tolist() == [345, 337, 60, 329, 290, 344, 349, 59, 347, 61]
