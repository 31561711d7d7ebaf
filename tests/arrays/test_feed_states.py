import pickle
from typing import Any

import numpy as np
import pytest
from feeding import BYTES, Pictures, feed_of, images_of, shown

from pipeline.errors import FeedError
from pipeline.lake_handle import Lake


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("release", 2),
        ("split", "other"),
        ("role", "test"),
        ("sanitized", False),
        ("images", "0" * 32),
        ("seed", 1),
        ("epoch", 1),
        ("batch_size", 9),
        ("rank", 1),
        ("world_size", 3),
        ("buffer_bytes", 1),
        ("drop_last", True),
        ("worker", 1),
        ("workers", 2),
    ],
)
def test_a_state_of_other_batches_is_an_error_that_names_the_difference(
    pictures: Pictures, key: str, other: object
) -> None:
    feed = feed_of(images_of(pictures, np.arange(30)), world_size=2)
    state = feed.epoch(0).state()
    with pytest.raises(FeedError, match=rf"the state is of other batches: {key} is .*, in the state {other!r}\."):
        feed.epoch(0, state={**state, key: other})  # type: ignore[dict-item] # any value
    del state[key]
    with pytest.raises(FeedError, match=f"{key} is .*, in the state None"):
        feed.epoch(0, state=state)


@pytest.mark.parametrize("state", ["hello", {}, {"epoch": 0}])
def test_what_is_no_state_is_an_error(pictures: Pictures, state: Any) -> None:
    with pytest.raises(FeedError, match="the state is damaged: it has no batches_done"):
        feed_of(images_of(pictures, np.arange(30))).epoch(0, state=state)


@pytest.mark.parametrize("done", [-1, "2", None, True, 10**6])
def test_a_damaged_state_is_an_error(pictures: Pictures, done: object) -> None:
    feed = feed_of(images_of(pictures, np.arange(30)))
    with pytest.raises(FeedError, match="the state is damaged: batches_done is"):
        feed.epoch(0, state={**feed.epoch(0).state(), "batches_done": done})  # type: ignore[dict-item] # any value


def test_a_state_names_all_that_the_order_depends_on(small_lake: Lake) -> None:
    begun = small_lake.batches("main", "train", batch_size=50, seed=4, epoch=2)
    next(begun)
    state = begun.state()
    assert len(str(state.pop("images"))) == 32
    assert state == {
        "release": small_lake.release,
        "split": "main",
        "role": "train",
        "sanitized": True,
        "batch_size": 50,
        "seed": 4,
        "buffer_bytes": 2**28,
        "drop_last": False,
        "rank": 0,
        "world_size": 1,
        "worker": 0,
        "workers": 1,
        "epoch": 2,
        "batches_done": 1,
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be 1 or more"),
        ({"buffer_bytes": 0}, "buffer_bytes is 0; it must be 1 or more"),
        ({"world_size": 0}, "world_size is 0; it must be 1 or more"),
        ({"rank": 2, "world_size": 2}, "rank is 2; of 2 it must be 0 to 1"),
        ({"rank": -1}, "rank is -1; of 1 it must be 0 to 0"),
    ],
)
def test_numbers_out_of_range_are_named(small_lake: Lake, wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_lake.batches("main", "train", **{"batch_size": 8, **wrong})  # type: ignore[arg-type] # by name


@pytest.mark.parametrize("buffer", [2**20, 100 * BYTES])
def test_writing_into_a_batch_changes_no_other(pictures: Pictures, buffer: int) -> None:
    feed = feed_of(images_of(pictures, np.arange(300)), 11, buffer_bytes=buffer)
    expected = shown(feed.epoch(0), pictures)
    for pixels, labels in feed.epoch(0):
        assert pixels.base is None or pixels.base.nbytes == pixels.nbytes
        pixels[:] = 0
        labels[:] = 0
    assert shown(feed.epoch(0), pictures) == expected


def test_a_copy_by_pickle_has_no_pixels_and_the_same_batches(pictures: Pictures) -> None:
    feed = feed_of(images_of(pictures, np.arange(300)))
    expected = shown(feed.epoch(0), pictures)
    stored = pickle.dumps(feed)
    assert pictures.pixels[:300].tobytes() not in stored
    assert len(stored) < 300 * 40 + 5000
    assert shown(pickle.loads(stored).epoch(0), pictures) == expected  # noqa: S301 - our own bytes


def test_a_feed_reads_once_for_all_epochs(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = feed_of(images_of(pictures, np.arange(300)))
    assert feed.held_whole
    list(feed.epoch(0))
    monkeypatch.setattr("pipeline.arrays.feed.gather", lambda _: pytest.fail("read again"))
    assert sorted(shown(feed.epoch(1), pictures)) == list(range(300))


def test_a_role_without_images_has_no_batches(pictures: Pictures) -> None:
    feed = feed_of(images_of(pictures, np.arange(0)))
    assert (len(feed), feed.batches_per_epoch, list(feed.epoch(0))) == (0, 0, [])
