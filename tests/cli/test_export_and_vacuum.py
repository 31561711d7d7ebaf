"""export, history and vacuum --keep-last, as a person runs them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Run, run_command
from lakes import writing
from making import as_folder, files_of

from pipeline.arrays.exports import FORMS
from pipeline.errors import LakeError, NoReleaseError

RECIPE = """
[lake]
root = "lake"
[[source]]
uri = "in"
dataset = "d"
split = "train"
[[split]]
name = "main"
train = { from = "train" }
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of three releases. Read only."""
    base = tmp_path_factory.mktemp("built")
    (base / "r.toml").write_text(RECIPE)
    for number in range(3):
        as_folder(base / "in", files_of(10, seed=number))
        run_command("build", base / "r.toml", "--workers", 1)
    return base / "lake"


@pytest.fixture
def lake(built: Path, tmp_path: Path) -> Path:
    """The lake of three releases, for this test alone."""
    return Path(shutil.copytree(built, tmp_path / "lake"))


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_ends_with_a_line_of_what_was_written(lake: Path, run: Run, tmp_path: Path, form: str) -> None:
    done = run("export", lake, "main", tmp_path / "out", "--to", form, "--workers", 1)
    assert done.exit_code == 0
    last = done.stdout.splitlines()[-1]
    assert f"exported release 3 as {form} to {tmp_path / 'out'}: 10 images, " in last
    assert " bytes in " in last
    assert "test  left out" in done.stdout
    assert done.stderr == ""


def test_json_role_release_and_pickle(lake: Path, run: Run, tmp_path: Path) -> None:
    words = ("--to", "notebook", "--pickle", "--role", "train", "--release", 1, "--original", "--workers", 1, "--json")
    told = json.loads(run("export", lake, "main", tmp_path / "out", *words).stdout)
    assert (told["release"], told["images"], told["roles"], told["unpinned"]) == (1, 10, {"train": 10}, "")
    assert (tmp_path / "out" / "notMNIST.pickle").exists()
    refused = run("export", lake, "main", tmp_path / "b", "--to", "npz", "--pickle")
    assert refused.exit_code == 2
    assert "--pickle needs --to notebook" in refused.stderr
    assert run("export", lake, "main", tmp_path / "b", "--to", "zarr").exit_code == 2


def test_an_export_pins_what_vacuum_would_give_up(lake: Path, run: Run, tmp_path: Path) -> None:
    run("export", lake, "main", tmp_path / "one", "--to", "npz", "--release", 1, "--workers", 1)
    run("export", lake, "main", tmp_path / "two", "--to", "npz", "--release", 2, "--workers", 1, "--no-pin")
    # In a table, or where that is too wide in a line of its own.
    assert " 1 export" in run("history", lake).stdout
    planned = run("vacuum", lake, "--keep-last", 1, "--older-than", 0, "--dry-run").stdout
    assert f"release 1 is kept, pinned by export of main as npz to {tmp_path / 'one'}" in planned
    assert "release 2 would be deleted\n" in planned
    assert "1 release would be deleted, 2 releases kept" in planned
    assert "release 2 is deleted\n" in run("vacuum", lake, "--keep-last", 1, "--older-than", 0).stdout
    assert [row["release"] for row in json.loads(run("history", lake, "--json").stdout)] == [1, 3]
    forced = run("vacuum", lake, "--keep-last", 1, "--force").stdout
    assert "release 1 is deleted, although pinned by export of main as npz" in forced
    assert "files younger than 24 hours are kept until a later vacuum" in forced
    with np.load(tmp_path / "one" / "main.npz") as arrays:
        assert len(arrays["train_images"]) == 10


def test_vacuum_as_json_and_force_alone(lake: Path, run: Run) -> None:
    told = json.loads(run("vacuum", lake, "--keep-last", 2, "--dry-run", "--json").stdout)
    assert told == {"deleted": [], "given_up": [1], "kept": [2, 3], "pinned": {}, "broken": {}, "dry_run": True}
    assert json.loads(run("vacuum", lake, "--json").stdout) == {"deleted": [], "dry_run": False}
    assert run("vacuum", lake, "--force").exit_code == 2
    assert run("vacuum", lake, "--keep-last", 0).exit_code == 2


def test_help_lists_every_form_on_a_line_of_its_own(run: Run) -> None:
    lines = run("export", "--help").stdout.splitlines()
    assert [form for form in FORMS if not any(line.startswith(f"  {form} ") for line in lines)] == []
    assert "  webdataset   ROLE-000000.tar with images and .cls, and __classes__, which names the classes" in lines
    assert "  imagelake vacuum data/demo --keep-last 3 --dry-run" in run("vacuum", "--help").stdout.splitlines()


def test_an_export_that_is_not_pinned_says_so(
    lake: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.lake.writers.lock.time.sleep", interrupt)
    with writing(str(lake)):
        done = run("export", lake, "main", tmp_path / "out", "--to", "npz", "--workers", 1)
    assert done.exit_code == 0
    assert "is complete; waiting for another writer of" in done.stderr
    assert (
        "release 3 is not pinned (interrupted while waiting for another writer of the lake): the export is complete"
        in done.stderr
    )
    assert run("export", lake, "main", tmp_path / "quiet", "--to", "npz", "--no-pin", "--workers", 1).stderr == ""


def test_older_releases_are_looked_at_by_one_option(lake: Path, run: Run, tmp_path: Path) -> None:
    page = tmp_path / "old.html"
    assert run("report", lake, "--release", 1, "-o", page).stdout == f"{page}\n"
    assert '<meta name="imagelake-release" content="1">' in page.read_text()
    with pytest.raises(
        LakeError, match="is always of the newest release. Choose another file: .* --release 2 --out FILE"
    ):
        run("report", lake, "--release", 2)
    text = run("status", lake, "--release", 2).stdout
    assert text.startswith(f"{lake}: release 2\n")
    assert "next build" not in text
    assert json.loads(run("status", lake, "--release", 2, "--json").stdout)["todo"] == []
    assert run("status", lake, "--release", 2, "--recipe", "r.toml").exit_code == 2
    for command in (("status",), ("overlap",), ("sql", "select 1"), ("report", "-o", page)):
        with pytest.raises(NoReleaseError, match="no release 9"):
            run(command[0], lake, *command[1:], "--release", 9)


@pytest.mark.parametrize("place", ["images/x.html", "/dev/null", "none/x.html"])
def test_a_report_takes_the_place_of_nothing_but_a_file(lake: Path, run: Run, place: str) -> None:
    with pytest.raises(LakeError, match=r"a table of a lake|is a device|No such file"):
        run("report", lake, "-o", lake / place)
    assert Path("/dev/null").is_char_device()
