"""Several labels per image come as an array of 0 and 1, in arrays and in feeds of any kind."""

import json
from typing import Any

import numpy as np
import pytest
from making import as_folder, files_of, recipe

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError
from pipeline.lake_handle import Lake

LABELS = [["cat", "dog"], [], ["zebra"], ["dog"], None, ["ant", "cat", "dog"]] * 5
NAMES = ["ant", "cat", "dog", "zebra"]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """30 images with 0 to 3 labels each; the ids of the last are unknown to the file. Read only."""
    base = tmp_path_factory.mktemp("targets")
    files = files_of(30)
    as_folder(base / "in", files)
    rows = [{"path": path, "labels": names} for path, names in zip(files, LABELS, strict=True)][:-1]
    (base / "facts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    split = {"name": "main", "train": {"from": "train", "size": 24}, "test": {"from": "train"}}
    build(recipe(base, {"uri": "in"}, attributes=[{"uri": "facts.jsonl"}], split=[split]), engine=LocalEngine(1))
    return Lake(base / "lake")


def expected(lake: Lake, role: str) -> Any:
    paths = dict(zip(files_of(30), [*LABELS[:-1], []], strict=True))
    rows = lake.members("main", role).join(lake.scan("images").select("image_id", "path").collect(), on="image_id")
    rows = lake.members("main", role)[["image_id"]].join(rows, on="image_id", maintain_order="left")
    return np.array([[name in (paths[path] or ()) for name in NAMES] for path in rows["path"]], np.uint8)


def test_arrays_have_a_row_for_each_image_and_a_column_for_each_label_of_the_lake(lake: Lake) -> None:
    assert lake.target_names("labels") == NAMES
    for role, count in (("train", 24), ("test", 6)):
        pixels, targets = lake.arrays("main", role, targets="labels")
        assert targets.shape == (count, 4)
        assert targets.dtype == np.uint8
        assert np.array_equal(targets, expected(lake, role))
        assert np.array_equal(pixels, lake.arrays("main", role)[0])
    assert lake.arrays("main", "train", targets="labels", ragged="list")[1].shape == (24, 4)


@pytest.mark.parametrize("buffer_bytes", [2**28, 5_000])
def test_feeds_give_the_targets_of_their_images(lake: Lake, buffer_bytes: int) -> None:
    pixels, targets = lake.arrays("main", "train", targets="labels")
    known = {picture.tobytes(): row.tolist() for picture, row in zip(pixels, targets, strict=True)}
    feed = lake.feed("main", "train", batch_size=5, buffer_bytes=buffer_bytes, targets="labels")
    batches = list(feed.epoch(0))
    assert [part.shape for _, part in batches] == [(5, 4)] * 4 + [(4, 4)]
    assert all(known[one.tobytes()] == row.tolist() for part in batches for one, row in zip(*part, strict=True))
    state = next_state(lake, targets="labels")
    again = lake.batches("main", "train", batch_size=5, targets="labels", state=state)
    rest = list(lake.batches("main", "train", batch_size=5, targets="labels"))[1:]
    assert all(np.array_equal(one[1], other[1]) for one, other in zip(again, rest, strict=True))


def next_state(lake: Lake, **options: Any) -> dict[str, Any]:
    batches = lake.batches("main", "train", batch_size=5, **options)
    next(batches)
    return dict(batches.state())


def test_torch_gets_them_as_a_tensor(lake: Lake) -> None:
    pytest.importorskip("torch")
    dataset = lake.feed("main", "train", batch_size=24, targets="labels").torch()
    ((_, targets),) = list(dataset)
    assert tuple(targets.shape) == (24, 4)


def test_an_unknown_attribute_is_named(lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"no image has the attribute 'label'\. Attributes: labels"):
        lake.arrays("main", "train", targets="label")
