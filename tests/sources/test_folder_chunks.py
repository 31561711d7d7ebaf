"""Content-defined shards: a file more, less or changed re-decodes little, whatever the names are."""

import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import source_of

from pipeline.sources import read, survey
from pipeline.sources.folder import _LARGEST, _cuts  # the bound and the cuts that the laws are about


def runs_of(digests: list[int], largest: int) -> list[tuple[int, ...]]:
    """Cut a list of digests as the folder does."""
    cuts = _cuts(np.array(digests, dtype=np.uint64), largest)
    return [tuple(digests[start:stop]) for start, stop in pairwise([0, *cuts])]


@given(st.permutations(range(60)), st.integers(1, 20))
def test_every_file_is_in_one_run_and_no_run_is_too_long(digests: list[int], largest: int) -> None:
    runs = runs_of(digests, largest)
    assert [digest for run in runs for digest in run] == digests
    assert all(0 < len(run) <= largest for run in runs)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=300, unique=True), st.data(), st.integers(1, 40))
def test_a_file_more_makes_two_runs_new_at_most(digests: list[int], data: st.DataObject, largest: int) -> None:
    at = data.draw(st.integers(0, len(digests) - 1))
    more, less = set(runs_of(digests, largest)), set(runs_of(digests[:at] + digests[at + 1 :], largest))
    assert len(more - less) <= 2
    # The other way round, a file less takes two runs away at most, and what it leaves of them is cut anew.
    assert sum(map(len, less - more)) < 2 * largest


def test_equal_digests_are_cut_too() -> None:
    assert all(len(run) <= 3 for run in runs_of([5] * 50, 3))


def test_one_percent_of_half_a_million_is_the_most_that_one_file_costs() -> None:
    assert 2 * _LARGEST <= 500_000 // 100
    digests = np.random.default_rng(0).integers(0, 2**63, 500_000, dtype=np.uint64).tolist()
    runs = runs_of(digests, _LARGEST)
    assert max(map(len, runs)) <= _LARGEST
    assert len(runs) < 3 * 500_000 / _LARGEST


def listed(place: Path, names: Iterable[int]) -> dict[str, str]:
    """Fill a folder with files of these names and survey it: fingerprint by shard key."""
    for file in place.iterdir():
        file.unlink()
    for name in names:
        (place / f"{name}.png").touch()
        os.utime(place / f"{name}.png", ns=(0, 0))
    return dict(survey(source_of(place)).shards or {})


def test_shards_that_are_untouched_keep_key_and_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.folder._LARGEST", 20)
    place = tmp_path / "set"
    place.mkdir()
    names = set(range(200))
    before = listed(place, names)
    assert len(before) > 9
    for gone in (0, 17, 199):
        assert len(before.items() - listed(place, names - {gone}).items()) <= 2
    for new in (1000, 1001):
        assert len(listed(place, names | {new}).items() - before.items()) <= 2


def test_a_changed_file_changes_its_shard_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.folder._LARGEST", 20)
    place = tmp_path / "set"
    place.mkdir()
    before = listed(place, range(200))
    (place / "150.png").write_bytes(b"changed")
    after = dict(survey(source_of(place)).shards or {})
    assert after.keys() == before.keys()
    ((key, _),) = after.items() - before.items()
    (shard,) = read(source_of(place), {key})
    assert "150.png" in shard.paths
