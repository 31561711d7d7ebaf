import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feeding import BYTES, Pictures, feed_of, images_of, once

from pipeline.errors import FeedError
from pipeline.lake_handle import Lake

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader  # noqa: E402 - only where there is torch

# From 3.12 on Python warns of every fork of a process that has threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

WHOLE, WINDOWS = 2**20, 200 * BYTES
# A spawned worker takes seconds to import torch, so `make test` starts some in one test only.
STARTS = ["fork", pytest.param("spawn", marks=pytest.mark.slow)]


def labels(batches: Any) -> list[list[int]]:
    """List the labels of each batch, which say which pictures they are."""
    return [y.tolist() for _, y in batches]


def loader(dataset: Any, start: str | None = None, count: int = 2, **options: Any) -> Any:
    """Load with two workers, or with none."""
    workers = {"num_workers": count, "multiprocessing_context": start} if start else {}
    return DataLoader(dataset, batch_size=None, **workers, **options)


def test_items_are_the_batches_as_tensors(small_lake: Lake) -> None:
    feed = small_lake.feed("main", "train", batch_size=50)
    for (pixels, classes), expected in zip(loader(feed.torch()), feed.epoch(0), strict=True):
        assert (pixels.dtype, classes.dtype) == (torch.uint8, torch.int64)
        np.testing.assert_array_equal(pixels.numpy(), expected[0])
        np.testing.assert_array_equal(classes.numpy(), expected[1])


def test_normalised_has_the_channels_first(small_lake: Lake) -> None:
    feed = small_lake.feed("main", "train", batch_size=50)
    for (pixels, _), expected in zip(feed.torch(normalised=True), feed.epoch(0), strict=True):
        assert (pixels.dtype, pixels.shape[1:]) == (torch.float32, (1, 28, 28))
        np.testing.assert_allclose(pixels.numpy()[:, 0], (expected[0] - 127.5) / 255, atol=1e-7)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("buffer", [WHOLE, WINDOWS])
def test_workers_show_every_image_once(pictures: Pictures, start: str, buffer: int) -> None:
    feed = feed_of(images_of(pictures, np.arange(399)), 10, buffer_bytes=buffer)
    list(feed.epoch(0))  # pixels and threads that workers must not depend on
    dataset = feed.torch()
    # Each epoch starts its own two workers.
    for epoch in range(2) if start == "fork" else [1]:
        dataset.set_epoch(epoch)
        data = loader(dataset, start)
        found = labels(data)
        assert len(found) == len(data) == len(dataset) == 40
        assert sorted(sum(found, [])) == list(range(399))  # noqa: RUF017 - forty
        if buffer == WHOLE:
            assert found == labels(feed.epoch(epoch))


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_lake_is_read_in_workers(small_lake: Lake, start: str) -> None:
    dataset = small_lake.feed("main", "train", batch_size=25).torch()
    assert labels(loader(dataset, start)) == labels(loader(dataset))


@pytest.mark.parametrize("start", STARTS)
def test_workers_that_stay_hear_of_the_next_epoch(pictures: Pictures, start: str) -> None:
    feed = feed_of(images_of(pictures, np.arange(400)), 10)
    dataset = feed.torch()
    data = loader(dataset, start, persistent_workers=True)
    for epoch in (0, 5, 6):
        dataset.set_epoch(epoch)
        assert labels(data) == labels(feed.epoch(epoch))


@pytest.mark.parametrize("buffer", [WHOLE, WINDOWS])
def test_a_state_goes_on_in_the_next_iteration_only(pictures: Pictures, buffer: int) -> None:
    feed = feed_of(images_of(pictures, np.arange(399)), 10, buffer_bytes=buffer)
    dataset = feed.torch()
    dataset.set_epoch(3)
    begun = iter(dataset)
    before = [next(begun)[1].tolist() for _ in range(7)]
    state = json.loads(json.dumps(dataset.state_dict()))
    other = feed.torch()
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert before + labels(other) == labels(feed.epoch(3))
    assert labels(other) == labels(feed.epoch(3))
    other.load_state_dict(state)
    other.set_epoch(4)
    assert labels(other) == labels(feed.epoch(4))
    with pytest.raises(FeedError, match="batch_size is 9, in the state 10"):
        feed_of(feed.images, 9, buffer_bytes=buffer).torch().load_state_dict(state)


@pytest.mark.parametrize("start", STARTS)
def test_what_workers_handed_out_is_not_said_not_to_have_been(pictures: Pictures, start: str) -> None:
    dataset = feed_of(images_of(pictures, np.arange(399)), 10).torch()
    items = iter(loader(dataset, start, count=1))
    next(items)
    with pytest.raises(FeedError, match="StatefulDataLoader"):
        dataset.state_dict()
    next(iter(dataset))
    assert dataset.state_dict()["batches_done"] == 1


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_loaders_of_torchdata_go_on(pictures: Pictures, workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    feed = feed_of(images_of(pictures, np.arange(399)), 10, buffer_bytes=WINDOWS)
    every = labels(stateful(feed.torch(), batch_size=None, num_workers=workers))
    begun = stateful(feed.torch(), batch_size=None, num_workers=workers)
    items = iter(begun)
    before = [next(items)[1].tolist() for _ in range(7)]
    after = stateful(feed.torch(), batch_size=None, num_workers=workers)
    after.load_state_dict(begun.state_dict())
    assert before + labels(after) == every


def test_ranks_are_those_of_torch_distributed(pictures: Pictures, tmp_path: Path) -> None:
    feed = feed_of(images_of(pictures, np.arange(399)), 10)
    by_rank = [labels(feed.torch(rank=rank, world_size=2)) for rank in range(2)]
    every = [image for rank in by_rank for batch in rank for image in batch]
    assert sorted(every) == list(range(399))
    assert once(every)
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        assert labels(feed.torch()) == labels(feed.epoch(0))
        plan = feed_of(feed.images, 10, rank=1, world_size=2).torch().feed.plan
        assert (plan.rank, plan.world_size) == (1, 2)
    finally:
        torch.distributed.destroy_process_group()
    with pytest.raises(ValueError, match="give both or neither"):
        feed.torch(rank=1)


def test_arrays_do_not_need_torch_and_datasets_say_so(small_lake: Lake) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from pipeline import Lake; from pipeline.errors import MissingExtraError\n"
        f"feed = Lake({small_lake.root!r}).feed('main', 'train', batch_size=50)\n"
        "assert sum(len(y) for _, y in feed.epoch(0)) == 120\n"
        "try: feed.torch()\n"
        "except MissingExtraError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert run.stdout.startswith("torch is not installed")
    assert "Run: pip install torch." in run.stdout


def test_torch_is_loaded_for_datasets_only(small_lake: Lake) -> None:
    script = (
        "import sys; from pipeline import Lake, open_npy\n"
        f"next(Lake({small_lake.root!r}).batches('main', 'train', batch_size=50))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
