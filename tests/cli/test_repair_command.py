"""`imagelake build --repair` prints what it found, what it restored, and what stays damaged."""

import json
import shutil

import pytest
from commands import Run
from damaged_lakes import Case

RECIPE = """
[lake]
root = "lake"
[decode]
size = [28, 28]
[dedup]
rules = ["exact", "sign", "cosine:0.95", "photo:0.9"]
[[source]]
uri = "train.tar.gz"
dataset = "d"
split = "train"
[[source]]
uri = "test"
dataset = "d"
split = "test"
[[source]]
uri = "more"
dataset = "d"
split = "test"
"""


@pytest.mark.slow
def test_the_command_tells_what_stays_and_exits_with_1(case: Case, run: Run) -> None:
    case.file("images", "shard=test").unlink()
    case.file("clusters").unlink()
    shutil.move(case.base / "test", case.base / "away")
    toml = case.base / "recipe.toml"
    toml.write_text(RECIPE)
    assert "then prune" in run("build", toml, "--repair", "--prune").output
    ran = run("build", toml, "--repair", "--workers", 1)
    assert ran.exit_code == 1
    assert "2 faults found" in ran.stdout
    assert "20 images stay damaged, because its source test is gone" in ran.stdout
    assert "clusters of cosine:0.95: cannot be made again before the images are repaired" in ran.stdout
    shutil.move(case.base / "away", case.base / "test")
    ran = run("build", toml, "--repair", "--workers", 1, "--json")
    assert (ran.exit_code, json.loads(ran.stdout)["damaged"], json.loads(ran.stdout)["stays"]) == (0, 2, [])
    assert "nothing is damaged" in run("build", toml, "--repair", "--workers", 1).stdout
