import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import Lake, open_npy
from pipeline.errors import FeedError


@pytest.fixture
def exported(small_lake: Lake, tmp_path: Path) -> Path:
    """Both roles of the small lake as arrays."""
    for role in ("train", "test"):
        pixels, labels = small_lake.arrays("main", role)
        ids = small_lake.members("main", role)["image_id"].to_list()
        np.save(tmp_path / f"{role}_images.npy", pixels)
        np.save(tmp_path / f"{role}_labels.npy", labels)
        np.save(tmp_path / f"{role}_ids.npy", np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16))
    about = {"lake": small_lake.root, "release": small_lake.release, "split": "main", "sanitized": True}
    (tmp_path / "export.json").write_text(json.dumps(about))
    return tmp_path


@pytest.mark.parametrize("plan", [{}, {"rank": 1, "world_size": 3}, {"drop_last": True, "seed": 8}])
def test_batches_are_those_of_the_lake(small_lake: Lake, exported: Path, plan: dict[str, Any]) -> None:
    ours = small_lake.feed("main", "train", batch_size=25, **plan)
    theirs = open_npy(exported).feed("train", batch_size=25, **plan)
    assert (len(ours), ours.batches_per_epoch) == (len(theirs), theirs.batches_per_epoch)
    for epoch in range(2):
        for left, right in zip(ours.epoch(epoch), theirs.epoch(epoch), strict=True):
            np.testing.assert_array_equal(left[0], right[0])
            np.testing.assert_array_equal(left[1], right[1])


def test_a_state_of_the_lake_goes_on_with_the_arrays(small_lake: Lake, exported: Path) -> None:
    begun = small_lake.batches("main", "train", batch_size=50)
    next(begun)
    state = begun.state()
    for left, right in zip(begun, open_npy(exported).batches("train", batch_size=50, state=state), strict=True):
        np.testing.assert_array_equal(left[0], right[0])


def test_arrays_are_mapped_and_batches_are_not(small_lake: Lake, exported: Path) -> None:
    pixels, labels = open_npy(exported).arrays("test")
    assert isinstance(pixels, np.memmap)
    assert not pixels.flags.writeable
    for ours, theirs in zip((pixels, labels), small_lake.arrays("main", "test"), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    batch, _ = next(open_npy(exported).batches("test", batch_size=5))
    assert type(batch) is np.ndarray
    assert batch.flags.writeable


def test_a_role_without_images_has_no_batches(exported: Path) -> None:
    np.save(exported / "valid_images.npy", np.empty((0, 28, 28), np.uint8))
    np.save(exported / "valid_labels.npy", np.empty(0, np.int64))
    np.save(exported / "valid_ids.npy", np.empty((0, 16), np.uint8))
    assert list(open_npy(exported).batches("valid", batch_size=5)) == []


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        (
            "train_labels",
            np.zeros(119, np.int64),
            "of 'train' do not belong together: images .120, 28, 28., labels .119,",
        ),
        ("train_ids", np.zeros((120, 15), np.uint8), "do not belong together"),
        (
            "train_images",
            np.zeros((120, 28, 28), np.float32),
            "train_images.npy holds float32 .120, 28, 28., not uint8",
        ),
        (
            "train_images",
            np.zeros((120, 784), np.uint8),
            "train_images.npy holds uint8 .120, 784., not uint8 .n, height",
        ),
        ("train_labels", np.zeros(120, np.int32), "train_labels.npy holds int32 .120,., not int64 .n,."),
        ("train_labels", np.array([None] * 120), "train_labels.npy cannot be read as an array"),
    ],
)
def test_arrays_that_do_not_fit_are_named(exported: Path, file: str, array: NDArray[Any], message: str) -> None:
    np.save(exported / f"{file}.npy", array, allow_pickle=True)
    with pytest.raises(FeedError, match=message):
        open_npy(exported).feed("train", batch_size=5)


@pytest.mark.parametrize("left", [0, 5, 60, 200, 9000])
@pytest.mark.parametrize("file", ["train_images.npy", "train_labels.npy", "train_ids.npy"])
def test_a_file_cut_short_is_named(exported: Path, file: str, left: int) -> None:
    whole = (exported / file).read_bytes()
    (exported / file).write_bytes(whole[: min(left, len(whole) - 1)])
    with pytest.raises(FeedError, match=f"{file} cannot be read as an array"):
        open_npy(exported).arrays("train")


def test_what_is_not_there_is_named(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="has no role 'valid'. There are: test, train."):
        open_npy(exported).arrays("valid")
    (exported / "test_labels.npy").unlink()
    with pytest.raises(FeedError, match="test_labels.npy cannot be read"):
        open_npy(exported).arrays("test")
    with pytest.raises(FeedError, match="has no export.json. Make it with: imagelake export"):
        open_npy(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read"), ("[]", "has no release"), ('{"release": 1}', "has no sanitized, split")],
)
def test_an_export_without_its_metadata_is_an_error(exported: Path, text: str, message: str) -> None:
    (exported / "export.json").write_text(text)
    with pytest.raises(FeedError, match=message):
        open_npy(exported)


def test_an_export_of_another_form_is_not_opened(exported: Path) -> None:
    about = json.loads((exported / "export.json").read_text())
    (exported / "export.json").write_text(json.dumps({**about, "form": "npz"}))
    with pytest.raises(FeedError, match="is an export of form npz"):
        open_npy(exported)
