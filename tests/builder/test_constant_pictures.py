"""Blank pictures are one cluster of cosine, without a pair, and do not leak from a split by groups."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from making import pictures, recipe

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake
from pipeline.verify import verify

BLANK, GRAY = range(0, 40, 2), range(1, 41, 4)


@pytest.mark.parametrize("clusters", ["components", "stars"])
def test_equal_constant_pictures_are_one_cluster_and_stay_in_one_role(
    tmp_path: Path, clusters: Literal["components", "stars"]
) -> None:
    images = pictures(60, size=(8, 8))
    images[list(BLANK)], images[list(GRAY)] = 255, 128
    np.savez(tmp_path / "some.npz", images=images, labels=np.zeros(60, int))
    split = {"name": "main", "groups": "cosine:0.9", "train": {"from": "train", "share": 0.5}}
    made = recipe(
        tmp_path,
        {"uri": "some.npz"},
        dedup={"rules": ["cosine:0.9"], "clusters": clusters},
        split=[{**split, "test": {"from": "train", "share": 0.5}}],
    )
    lake = Lake(build(made, engine=LocalEngine(1)).root)
    assert lake.scan("pairs").collect().is_empty()
    sizes = lake.scan("clusters").collect().group_by("cluster_id").len()["len"].sort().to_list()
    assert sizes == [len(GRAY), len(BLANK)]
    roles = lake.sql(
        "select path::int as n, role from splits join images using (image_id) where kept order by n"
    ).fetchall()
    for group in (BLANK, GRAY):
        assert len({role for number, role in roles if number in group}) == 1
    assert not [check for check in verify(lake.root) if check.faults]
