from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from exported import export_main, files_below
from hypothesis import given
from hypothesis import strategies as st

from pipeline.arrays.exports import FORMS
from pipeline.arrays.exports.selection import run_edges
from pipeline.export import export_engine
from pipeline.lake_handle import Lake


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("form", FORMS)
def test_the_same_release_gives_the_same_bytes_whatever_the_workers(
    small_lake: Lake, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("selection", "imagefolder", "webdataset"):
        # Small chunks, so that there is work for two.
        monkeypatch.setattr(f"pipeline.arrays.exports.{module}.CHUNK_BYTES", 20_000)
    for workers in (1, 2):
        export_main(small_lake, tmp_path / str(workers), form, engine=export_engine(workers))
    export_main(small_lake, tmp_path / "again", form)
    first = files_below(tmp_path / "1")
    assert "export.json" in first
    assert first == files_below(tmp_path / "2") == files_below(tmp_path / "again")


@given(st.lists(st.integers(0, 50)), st.integers(0, 100))
def test_runs_are_as_long_as_can_be_and_lose_nothing(sizes: list[int], most: int) -> None:
    edges = run_edges(np.array(sizes, np.int64), most).tolist()
    assert edges[0] == 0
    assert edges[-1] == len(sizes)
    for low, high in pairwise(edges):
        assert high > low
        assert high - low == 1 or sum(sizes[low:high]) <= most
        assert high == len(sizes) or sum(sizes[low : high + 1]) > most
