"""Verdicts about a lake in a bucket are objects, until a build commits them."""

from pathlib import Path

from making import as_folder, files_of, recipe
from s3 import Bucket

from pipeline import storage
from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake
from pipeline.verify import verify


def test_a_bucket_keeps_verdicts(tmp_path: Path, lake_bucket: Bucket) -> None:
    place = f"s3://{lake_bucket.name}/decided"
    as_folder(tmp_path / "train", files_of(12))
    made = recipe(
        tmp_path,
        {"uri": "train"},
        lake={"root": place},
        dedup={"rules": ["exact"]},
        split=[{"name": "main", "train": {"from": "train"}}],
    )
    build(made, engine=LocalEngine(1))
    lake = Lake(place)
    lake.decide("drop", "A/00000.png")
    lake.decide("same", "A/00002.png", "A/00004.png")
    assert len(list(storage.list_files(f"{place}/.verdicts"))) == 2
    assert lake.verdicts().waiting == 2
    build(made, engine=LocalEngine(1))
    assert [name[:5] for name in storage.list_files(f"{place}/.verdicts")] == ["copy-"]
    assert Lake(place).scan("clusters").collect().height == 2
    assert Lake(place).scan("splits").collect()["reason"].drop_nulls().to_list() == ["verdict"]
    assert not [str(fault) for check in verify(place) for fault in check.faults]
