"""The app reads a lake in a bucket, and records verdicts as objects; issues have queues of their own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from making import as_folder, encoded, files_of, pictures, recipe
from reviewing import App
from s3 import Bucket

from pipeline import storage
from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake


def test_a_lake_in_a_bucket_is_reviewed(tmp_path: Path, lake_bucket: Bucket, start: Callable[..., App]) -> None:
    place = f"s3://{lake_bucket.name}/reviewed"
    drawn = pictures(4)
    files = {f"train/A/{number}.png": encoded(drawn[number]) for number in range(4)}
    changed = drawn.copy()
    changed[:, :2, :2] = 255
    files |= {f"test/A/{number}.png": encoded(changed[number]) for number in range(4)}
    as_folder(tmp_path, files)
    sources = ({"uri": "train"}, {"uri": "test", "split": "test"})
    made = recipe(tmp_path, *sources, lake={"root": place}, dedup={"rules": ["cosine:0.95"]})
    build(made, engine=LocalEngine(1))
    app = start(Lake(place))
    page = app.get("/queue/pairs?rule=cosine:0.95&between=1")
    app.press(page, "different")
    assert len(list(storage.list_files(f"{place}/.verdicts"))) == 1
    build(made, engine=LocalEngine(1))
    assert Lake(place).scan("clusters").collect().height == 6


def test_issues_have_queues(tmp_path: Path, start: Callable[..., App]) -> None:
    files = {f"train/{name}": data for name, data in files_of(12).items()}
    files |= {"train/A/blank.png": encoded(np.full((28, 28), 200, np.uint8))}
    as_folder(tmp_path, files)
    made = recipe(tmp_path, {"uri": "train"}, issues={})
    build(made, engine=LocalEngine(1))
    lake = Lake(made.root)
    assert lake.scan("issues").filter(kind="blank").collect().height == 1
    app = start(lake)
    assert "Quality issues" in app.get("/")
    page = app.get("/queue/quality")
    assert "blank" in page
    app.press(page, "drop")
    assert lake.verdicts().standing["verdict"].to_list() == ["drop"]
