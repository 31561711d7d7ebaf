import json
from itertools import chain, islice, zip_longest

import numpy as np
import pytest
from examples import few
from feeding import BYTES, Pictures, feed_of, images_of, once, shown
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.arrays.epoch import epoch_order
from pipeline.arrays.feed import Feed

counts = st.integers(0, 400)
sizes = st.integers(1, 70)
# From less than one image to more than all of them: windows of one row group, windows of some, the whole role.
buffers = st.integers(1, 500 * BYTES)
parts_of = st.integers(1, 4)
seeds = st.integers(0, 2**70)


def some(count: int) -> NDArray[np.int64]:
    """Choose pictures, in an order that is not that of the files."""
    return np.random.default_rng(count).permutation(400)[:count]


def parts(feed: Feed, world_size: int, workers: int) -> list[list[Feed]]:
    """Make, for every rank, the feeds of its workers."""
    plan = feed.plan
    ranks = [
        feed_of(
            feed.images,
            plan.batch_size,
            plan.seed,
            plan.buffer_bytes,
            drop_last=plan.drop_last,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    return [[rank.part(worker, workers) for worker in range(workers)] for rank in ranks]


@few(30)
@given(counts, sizes, buffers, parts_of, parts_of, st.integers(-3, 3), seeds)
def test_ranks_and_workers_show_every_image_once(  # noqa: PLR0913, PLR0917 - a law of them all
    pictures: Pictures, count: int, size: int, buffer: int, world_size: int, workers: int, epoch: int, seed: int
) -> None:
    whole = feed_of(images_of(pictures, some(count)), size, seed, buffer)
    listed = []
    for rank in parts(whole, world_size, workers):
        batches = [list(part.epoch(epoch)) for part in rank]
        lengths = sorted((len(y) for part in batches for _, y in part), reverse=True)
        assert len(lengths) == rank[0].batches_per_epoch
        assert all(length == size for length in lengths[:-1])
        assert sum(lengths) == len(rank[0])
        assert len(rank[0]) in {count // world_size, -(-count // world_size)}
        listed += [image for part in batches for image in shown(part, pictures)]
    assert sorted(listed) == sorted(some(count).tolist())


@few(30)
@given(counts, sizes, buffers, parts_of, parts_of, st.data())
def test_a_state_goes_on_with_the_batch_after(  # noqa: PLR0913, PLR0917 - a law of them all
    pictures: Pictures, count: int, size: int, buffer: int, world_size: int, workers: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(0, world_size - 1))
    worker = data.draw(st.integers(0, workers - 1))
    feed = parts(feed_of(images_of(pictures, some(count)), size, 7, buffer), world_size, workers)[rank][worker]
    every = [y.tolist() for _, y in feed.epoch(2)]
    stop = data.draw(st.integers(0, len(every)))
    begun = feed.epoch(2)
    before = [y.tolist() for _, y in islice(begun, stop)]
    state = json.loads(json.dumps(begun.state()))
    after = [y.tolist() for _, y in feed.epoch(2, state=state)]
    assert before + after == every


@few(8)
@given(st.integers(12, 400), buffers, parts_of, parts_of)
def test_another_epoch_or_seed_is_another_order(
    pictures: Pictures, count: int, buffer: int, world_size: int, workers: int
) -> None:
    images = images_of(pictures, some(count))
    every = [feed_of(images, 8, seed, buffer) for seed in (0, 1)]

    def order(feed: Feed, epoch: int) -> list[int]:
        whole = chain.from_iterable(parts(feed, world_size, workers))
        return [image for part in whole for image in shown(part.epoch(epoch), pictures)]

    orders = [order(every[0], 0), order(every[0], 1), order(every[1], 0)]
    assert orders[0] == order(feed_of(images, 8, 0, buffer), 0)
    assert len({tuple(listed) for listed in orders}) == 3


@few(25)
@given(counts, sizes, parts_of, st.booleans())
def test_a_role_that_fits_is_shuffled_whole_and_ranks_have_parts_of_one_order(
    pictures: Pictures,
    count: int,
    size: int,
    world_size: int,
    drop_last: bool,  # noqa: FBT001 - drawn
) -> None:
    images = images_of(pictures, some(count))
    order = images.labels[epoch_order(images.image_ids, 5, 1)].tolist()
    feeds = parts(feed_of(images, size, 5, drop_last=drop_last), world_size, 3)
    listed = []
    for rank in feeds:
        # As a DataLoader does: a batch of each worker in turn.
        turns = zip_longest(*(part.epoch(1) for part in rank))
        listed.append(shown((batch for turn in turns for batch in turn if batch is not None), pictures))
    starts = [count * rank // world_size for rank in range(world_size)]
    assert all(order[start:][: len(part)] == part for start, part in zip(starts, listed, strict=True))
    if drop_last:
        assert {len(part) for part in listed} == {count // world_size // size * size}
    else:
        assert list(chain.from_iterable(listed)) == order


@few(25)
@given(counts, sizes, buffers, parts_of)
def test_drop_last_leaves_the_same_full_batches_to_every_rank(
    pictures: Pictures, count: int, size: int, buffer: int, world_size: int
) -> None:
    whole = feed_of(images_of(pictures, some(count)), size, 0, buffer, drop_last=True)
    ranks = [rank[0] for rank in parts(whole, world_size, 1)]
    lengths = [[len(y) for _, y in rank.epoch(0)] for rank in ranks]
    assert lengths == [[size] * (count // world_size // size)] * world_size
    assert once(image for rank in ranks for image in shown(rank.epoch(0), pictures))


@pytest.mark.parametrize("buffer", [50 * BYTES, 100 * BYTES, 2**20])
def test_threads_do_not_change_the_order(pictures: Pictures, monkeypatch: pytest.MonkeyPatch, buffer: int) -> None:
    images = images_of(pictures, some(300))
    orders = set()
    for count in (1, 2, 7):
        monkeypatch.setattr("pipeline.pixels.available_cores", lambda count=count: count)
        orders.add(tuple(shown(feed_of(images, 9, 3, buffer).epoch(0), pictures)))
    assert len(orders) == 1


def test_the_order_of_ids_and_files_does_not_change_a_window(pictures: Pictures) -> None:
    chosen = some(300)
    listed = shown(feed_of(images_of(pictures, chosen), 9, 3, 100 * BYTES).epoch(0), pictures)
    assert listed == shown(feed_of(images_of(pictures, np.sort(chosen)), 9, 3, 100 * BYTES).epoch(0), pictures)
    turned = pictures._replace(files=pictures.files[::-1])
    assert listed == shown(feed_of(images_of(turned, chosen), 9, 3, 100 * BYTES).epoch(0), turned)
