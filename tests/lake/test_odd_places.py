"""A lake may lie nearly anywhere; where it cannot, a line says so before anything is written."""

from pathlib import Path

import pytest
from making import as_folder, files_of, recipe

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError
from pipeline.lake_handle import Lake


@pytest.mark.parametrize("name", ["a%20b", "a\\b", "a\x1bb", "a\nb"])
def test_places_that_delta_would_take_for_others_are_refused(name: str, tmp_path: Path) -> None:
    as_folder(tmp_path / "in", files_of(4))
    for attempt in (
        lambda: Lake(tmp_path / name),
        lambda: build(recipe(tmp_path, {"uri": "in"}, lake={"root": name}), engine=LocalEngine(1)),
    ):
        with pytest.raises(LakeError, match="a lake cannot lie at a place whose name contains"):
            attempt()
    assert not list(tmp_path.rglob("*.parquet"))


def test_other_odd_places_hold_a_lake(tmp_path: Path) -> None:
    as_folder(tmp_path / "in", files_of(4))
    name = "ä [x]^|{y}%2 #?*~`\"'<b>&+:@\u202e"
    build(recipe(tmp_path, {"uri": "in"}, lake={"root": name}), engine=LocalEngine(1))
    lake = Lake(tmp_path / name)
    assert len(lake.scan("images").collect()) == 4
    assert lake.sql("select count(*) from images").fetchall() == [(4,)]
