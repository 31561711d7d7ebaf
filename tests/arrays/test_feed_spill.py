import errno
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feeding import BYTES, Pictures, images_of, shown
from hypothesis import given
from hypothesis import strategies as st

from pipeline import pixels
from pipeline.arrays import spill
from pipeline.arrays.epoch import Plan
from pipeline.arrays.feed import Feed
from pipeline.arrays.spill import SpillFile
from pipeline.errors import FeedError
from pipeline.lake_handle import Lake

COUNT, BUFFER = 400, 180 * BYTES


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put spill files into a folder of the test.

    Not by TMPDIR: workers of torch make sockets there, and the path of a socket has at most 107 bytes. With a longer
    path they lose their results, and the DataLoader waits forever.
    """
    folder = tmp_path / "spill"
    folder.mkdir()
    monkeypatch.setattr(spill, "disk_folder", lambda: str(folder))
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """List the number of images of each row group that is decoded."""
    counts: list[int] = []
    read = pixels._read_rows_into  # noqa: SLF001 - the one place that decodes

    def counted(out: Any, group: Any, rows: Any, targets: Any, *, check: bool) -> None:
        counts.append(len(rows))
        read(out, group, rows, targets, check=check)

    monkeypatch.setattr(pixels, "_read_rows_into", counted)
    return counts


def spilling(pictures: Pictures, most_bytes: int = 2**30, *, chosen: Sequence[int] = range(COUNT), **plan: int) -> Feed:
    """Make a feed of windows with a spill file."""
    return Feed(images_of(pictures, np.array(chosen)), Plan(7, 0, BUFFER, **plan), spill=SpillFile(most_bytes))  # type: ignore[arg-type] # drop_last is a bool


def size_of(feed: Feed) -> int:
    """Return the size of a feed's spill file."""
    descriptor = None if feed.spill is None else feed.spill.open()
    assert descriptor is not None
    return os.fstat(descriptor).st_size


def test_pixels_are_decoded_once(pictures: Pictures, decoded: list[int], temporary_folder: Path) -> None:
    feed = spilling(pictures)
    expected = [shown(Feed(feed.images, feed.plan).epoch(epoch), pictures) for epoch in range(4)]
    decoded.clear()
    assert [shown(feed.epoch(epoch), pictures) for epoch in range(4)] == expected
    assert sum(decoded) == COUNT
    assert list(temporary_folder.iterdir()) == []


@pytest.mark.parametrize("world_size", [1, 3])
def test_epochs_resume_with_and_without_a_spill_file(pictures: Pictures, world_size: int) -> None:
    feed = spilling(pictures, rank=world_size - 1, world_size=world_size, chosen=range(0, COUNT, 2))
    bare = Feed(feed.images, feed.plan)
    for epoch in range(6):
        whole = shown(bare.epoch(epoch), pictures)
        begun, begun_bare = feed.epoch(epoch), bare.epoch(epoch)
        assert shown((next(begun), next(begun_bare)), pictures) == 2 * whole[:7]
        assert begun.state() == begun_bare.state()
        assert shown(feed.epoch(epoch, state=begun_bare.state()), pictures) == whole[7:]
        assert shown(bare.epoch(epoch, state=begun.state()), pictures) == whole[7:]


@given(most_bytes=st.integers(1, 2 * COUNT * BYTES))
def test_the_file_is_no_larger_than_allowed(pictures: Pictures, most_bytes: int) -> None:
    feed = spilling(pictures, most_bytes)
    for epoch in range(2):
        assert sorted(shown(feed.epoch(epoch), pictures)) == list(range(COUNT))
    assert size_of(feed) <= most_bytes


def test_what_does_not_fit_is_decoded_in_every_epoch(pictures: Pictures, decoded: list[int]) -> None:
    feed = spilling(pictures, COUNT * BYTES // 2)
    list(feed.epoch(0))
    decoded.clear()
    list(feed.epoch(1))
    assert 0 < sum(decoded) < COUNT


@pytest.mark.parametrize("after", [0, 1, 2, 5])
def test_a_full_disk_changes_nothing(pictures: Pictures, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    feed, left, write = spilling(pictures), [after], os.pwrite

    def fails(*args: Any) -> int:
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "no space left")
        left[0] -= 1
        return write(*args)

    monkeypatch.setattr(os, "pwrite", fails)
    for epoch in range(3):
        assert sorted(shown(feed.epoch(epoch), pictures)) == list(range(COUNT))
    # A thread may have written one more row group meanwhile.
    assert size_of(feed) < COUNT * BYTES
    assert feed.spill is not None
    assert feed.spill.most_bytes == 0


def test_a_folder_that_cannot_be_written_changes_nothing(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "disk_folder", lambda: "/proc/no-such-folder")
    feed = spilling(pictures)
    assert sorted(shown(feed.epoch(0), pictures)) == list(range(COUNT))
    assert feed.spill is not None
    assert feed.spill.open() is None


def test_a_damaged_file_is_noticed(pictures: Pictures, decoded: list[int]) -> None:
    feed = spilling(pictures)
    list(feed.epoch(0))
    descriptor = None if feed.spill is None else feed.spill.open()
    assert descriptor is not None
    os.pwrite(descriptor, b"damage", size_of(feed) - 6)
    decoded.clear()
    assert sorted(shown(feed.epoch(1), pictures)) == list(range(COUNT))
    assert sum(decoded) > 0


def test_a_copy_has_a_file_of_its_own(pictures: Pictures) -> None:
    feed = spilling(pictures)
    list(feed.epoch(0))
    copy = pickle.loads(pickle.dumps(feed))  # noqa: S301 - our own bytes
    assert size_of(copy) == 0
    assert shown(copy.epoch(1), pictures) == shown(feed.epoch(1), pictures)


@pytest.mark.parametrize("options", [{"ragged": "pad"}, {"size": (9, 7), "fit": "crop"}])
def test_other_ways_to_read(small_lake: Lake, options: dict[str, Any]) -> None:
    with_file, without = (
        small_lake.feed("main", "train", batch_size=9, buffer_bytes=2**12, spill_bytes=most, **options)
        for most in (2**30, 0)
    )
    for epoch in range(3):
        for ours, expected in zip(with_file.epoch(epoch), without.epoch(epoch), strict=True):
            np.testing.assert_array_equal(ours[0], expected[0])
            np.testing.assert_array_equal(ours[1], expected[1])
    assert size_of(with_file) > 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_share_the_file(pictures: Pictures, start: str) -> None:
    pytest.importorskip("torch")
    from torch.utils.data import DataLoader  # noqa: PLC0415 - only where there is torch

    feed = spilling(pictures)
    dataset = feed.torch()
    for epoch in range(2):
        dataset.set_epoch(epoch)
        data = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=start)
        assert sorted(sum((y.tolist() for _, y in data), [])) == list(range(COUNT))  # noqa: RUF017 - sixty
    assert size_of(feed) > COUNT * BYTES // 2


def test_the_file_lies_where_temporary_files_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    file = SpillFile(2**20)
    assert Path(f"/proc/self/fd/{file.open()}").readlink().is_relative_to(tmp_path)


def test_a_negative_size_is_refused(small_lake: Lake) -> None:
    with pytest.raises(FeedError, match="spill_bytes is -1"):
        small_lake.feed("main", "train", batch_size=9, spill_bytes=-1)
