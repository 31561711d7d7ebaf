"""Shards of listed files: every file is in one shard, no shard is too large, and files may be put into any shards."""

import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from examples import few
from hypothesis import given
from hypothesis import strategies as st
from making import source_of

from pipeline.shard import Listing, Survey, fingerprint_of_files, sum_of_fingerprints
from pipeline.sources import folder, read, survey
from pipeline.sources.folder import Entry


def listing(source_place: Path, sizes: Iterable[int]) -> Listing:
    entries = [Entry(f"{at:04}.png", f"{at:04}.png", size, 0, "", None) for at, size in enumerate(sizes)]
    files = folder.survey_files(source_of(source_place), entries).files
    assert files is not None
    return files


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("empty") / "set"
    made.mkdir()
    return made


@few(50, thorough=500)
@given(st.lists(st.integers(0, 60), max_size=80), st.integers(1, 30), st.data())
def test_every_file_is_in_one_shard_and_no_shard_is_too_large(
    place: Path, sizes: list[int], largest: int, data: st.DataObject
) -> None:
    files = listing(place, sizes)
    chosen = sorted(data.draw(st.sets(st.sampled_from(range(len(sizes))))) if sizes else ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "_LARGEST", largest)
        patch.setattr(folder, "_LARGEST_BYTES", 200)
        runs = [run.tolist() for run in files.cut(np.array(chosen, np.int64)).values()]
    assert [at for run in runs for at in run] == chosen
    assert all(len(run) == 1 or (len(run) <= largest and sum(sizes[at] for at in run) <= 200) for run in runs)
    # No two neighbours fit into one shard.
    for one, other in pairwise(runs):
        assert len(one) == largest or sum(sizes[at] for at in [*one, other[0]]) > 200


@few(50, thorough=500)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_the_sum_of_fingerprints_is_that_of_all_files(place: Path, shards: list[int]) -> None:
    files = listing(place, range(len(shards)))
    parts = [fingerprint_of_files(files.digests[np.array(shards) == shard]) for shard in range(4)]
    assert sum_of_fingerprints(parts) == fingerprint_of_files(files.digests)
    assert sum_of_fingerprints([*parts, "0" * 32]) is None


def test_large_pictures_make_small_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    for number in range(40):
        (tmp_path / "set" / f"{number}.jpg").write_bytes(bytes(1_000))
    monkeypatch.setattr(folder, "_LARGEST_BYTES", 10_000)
    assert len(survey(source_of(tmp_path / "set")).shards or ()) == 4
    # With the bytes of the pixels.
    assert len(survey(source_of(tmp_path / "set", decode={"size": [50, 50]})).shards or ()) > 8


def listed(place: Path, names: Iterable[int]) -> Survey:
    """Fill a folder with files of these names and survey it."""
    for file in place.iterdir():
        file.unlink()
    for name in names:
        (place / f"{name}.png").touch()
        os.utime(place / f"{name}.png", ns=(0, 0))
    return survey(source_of(place))


def test_a_key_names_the_files_of_its_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard of new files never gets the key of a shard that still has files."""
    monkeypatch.setattr(folder, "_LARGEST", 20)
    place = tmp_path / "set"
    place.mkdir()
    before = dict(listed(place, range(200)).shards or {})
    assert len(before) == 10
    # The last path of all.
    assert len(set(listed(place, set(range(200)) - {99}).shards or ()) - set(before)) == 1
    # Every run after a file that is gone starts later.
    assert not set(listed(place, set(range(200)) - {0}).shards or ()) & set(before)


def test_a_changed_file_changes_its_shard_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_LARGEST", 20)
    place = tmp_path / "set"
    place.mkdir()
    before = dict(listed(place, range(200)).shards or {})
    (place / "150.png").write_bytes(b"changed")
    after = dict(survey(source_of(place)).shards or {})
    assert after.keys() == before.keys()
    ((key, _),) = after.items() - before.items()
    (shard,) = read(source_of(place), {key})
    assert "150.png" in shard.paths
