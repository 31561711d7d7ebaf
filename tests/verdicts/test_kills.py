"""Law 15 with the real thing: kill -9 those who decide, and builds, at random moments; nothing is lost or doubled."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import start_command
from making import as_folder, files_of, recipe

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake
from pipeline.verdicts.journal import read_verdicts
from pipeline.verify import verify

pytestmark = pytest.mark.slow

_DECIDE = """
import sys
from pipeline.verdicts.journal import Picture, Verdict, record
place, first = sys.argv[1], int(sys.argv[2])
for number in range(first, first + 500):
    picture = Picture(number.to_bytes(16, "big"), number.to_bytes(32, "big"))
    (made,) = record(place, [Verdict("drop", picture)], "ann")
    print(number, made.hex(), flush=True)
"""


@pytest.mark.parametrize("verdicts", [200, pytest.param(1_000, marks=pytest.mark.stress)])
def test_no_verdict_is_lost_or_doubled(tmp_path: Path, verdicts: int) -> None:
    as_folder(tmp_path / "train", files_of(30))
    made = recipe(tmp_path, {"uri": "train"}, split=[{"name": "main", "train": {"from": "train"}}])
    build(made, engine=LocalEngine(1))
    chance, place = random.Random(3), made.root
    said: dict[str, int] = {}
    kills = 0
    while len(said) < verdicts:
        deciding = subprocess.Popen(
            [sys.executable, "-c", _DECIDE, place, str(1_000 * len(said))], stdout=subprocess.PIPE, text=True
        )
        building = start_command("build", place, "--workers", "1")
        time.sleep(chance.uniform(0.3, 2.5))
        if chance.random() < 0.7:
            building.kill()
        deciding.kill()
        kills += 1
        lines = [line.split() for line in deciding.communicate()[0].splitlines()]
        building.wait()
        # The last line may be cut off by the kill.
        said |= {line[1]: int(line[0]) for line in lines if len(line) == 2 and len(line[1]) == 32}
    build(made, engine=LocalEngine(1))
    stored = Lake(place).scan("verdicts").collect()
    ids = [one.hex() for one in stored["verdict_id"]]
    assert len(ids) == len(set(ids))
    assert said.keys() <= set(ids), "what was recorded is there"
    # A verdict that was written and not yet reported may be there too: one for each kill at most.
    assert len(ids) <= len(said) + kills
    assert read_verdicts(place).equals(stored.sort("created_at", "who", "file_digest", "verdict_id"))
    assert not [str(fault) for check in verify(place) for fault in check.faults]
