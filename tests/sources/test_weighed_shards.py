"""Law: shards of files are cut by their bytes too, and one file more changes at most two shards of files and bytes."""

from pathlib import Path

import numpy as np
import pytest
from examples import few
from hypothesis import example, given
from hypothesis import strategies as st
from making import source_of

from pipeline.sources import folder, survey

SIZES = st.lists(
    st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 60)), min_size=2, max_size=80, unique_by=lambda x: x[0]
)


def runs(files: list[tuple[int, int]], largest: int) -> list[list[tuple[int, int]]]:
    hashes, weights = (
        np.array(column, kind) for column, kind in zip(zip(*files, strict=True), ("u8", "i8"), strict=True)
    )
    stops = folder._cuts(hashes, largest, weights)  # noqa: SLF001 - what the law is of
    return [files[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


@given(SIZES, st.integers(0, 10**6), st.integers(3, 30))
@few(100, thorough=1_000)
@example([(2, 21), (3, 60), (4, 60), (0, 60), (1, 0)], 0, 4)
def test_a_file_more_changes_two_shards_of_files_and_bytes(files: list[tuple[int, int]], at: int, largest: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "_LARGEST_BYTES", 200)
        cut = runs(files, largest)
        at %= len(files)
        before = runs(files[:at] + files[at + 1 :], largest)
    assert [file for run in cut for file in run] == files
    assert all(len(run) == 1 or (len(run) <= largest and sum(size for _, size in run) <= 200) for run in cut)
    # A heavy file may cut a shard several times.
    changed = [file for run in cut if run not in before for file in run if file != files[at]]
    assert len(changed) <= 2 * largest
    assert sum(size for _, size in changed) <= 2 * 200


def test_only_lakes_that_record_originals_weigh_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older lake finds its shards again."""
    (tmp_path / "set").mkdir()
    for number in range(40):
        (tmp_path / "set" / f"{number}.jpg").write_bytes(bytes(1_000))
    old = survey(source_of(tmp_path / "set")).shards
    monkeypatch.setattr(folder, "_LARGEST_BYTES", 10_000)
    assert survey(source_of(tmp_path / "set")).shards == old
    for decode in ({"originals": "keep"}, {"originals": "none"}):
        shards = survey(source_of(tmp_path / "set", decode=decode)).shards
        assert shards is not None
        assert len(shards) >= 4
    by_pixels = survey(source_of(tmp_path / "set", decode={"originals": "none", "size": [50, 50]})).shards
    assert by_pixels is not None
    assert len(by_pixels) > 8
