"""Writers and readers at once, each a process: nothing is lost, nothing half is seen, nothing lies about."""

from pathlib import Path

import pytest
from many_builds import Counts, of, run_writers_and_readers
from s3 import Bucket
from together import differing, laws, left_over

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake
from pipeline.verify import verify

pytestmark = pytest.mark.slow


def held(base: Path, root: str, *, writers: int, readers: int, releases: int, pause: float = 1) -> Counts:  # noqa: PLR0913 - keyword arguments
    """Run writers and readers, and compare the lake with one that is built from the last state of all folders."""
    counts = run_writers_and_readers(base, root, writers=writers, readers=readers, releases=releases, pause=pause)
    print(f"\n{writers} writers and {readers} readers: {counts}; nothing lost")  # noqa: T201 - shown by make stress
    numbers = sorted(int(folder.name[1:]) for folder in base.glob("s*") if folder.is_dir())
    fresh = build(of(base, "fresh", *numbers), engine=LocalEngine(1)).root
    assert differing(root, fresh) == []
    assert laws(Lake(root)) == []
    assert left_over(root) == []
    assert all(not check.faults for check in verify(root))
    assert counts.releases >= releases
    assert counts.reads >= 2 * readers
    assert counts.outcomes["landed"] > 0
    return counts


def test_three_writers_and_two_readers(tmp_path: Path) -> None:
    held(tmp_path, str(tmp_path / "lake"), writers=3, readers=2, releases=6, pause=0.2)


@pytest.mark.stress
def test_eight_writers_and_four_readers_over_two_hundred_releases(tmp_path: Path) -> None:
    counts = held(tmp_path, str(tmp_path / "lake"), writers=8, readers=4, releases=200)
    assert counts.outcomes["refused"] + counts.outcomes["dropped as the same"] > 0


@pytest.mark.stress
def test_three_writers_and_two_readers_on_a_bucket(tmp_path: Path, lake_bucket: Bucket) -> None:
    held(tmp_path, f"s3://{lake_bucket.name}/lake", writers=3, readers=2, releases=20)
