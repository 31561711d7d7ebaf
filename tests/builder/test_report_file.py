"""The report beside the tables: every build with something to do writes it anew."""

from pathlib import Path

import pytest
from commands import Run
from making import as_folder, files_of, recipe

from pipeline.builder.build import build
from pipeline.builder.publish import write_report
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError
from pipeline.lake_handle import Lake


@pytest.mark.usefixtures("reports")
def test_the_report_is_of_the_newest_release(tmp_path: Path) -> None:
    def run() -> tuple[Path, int]:
        built = build(recipe(tmp_path, {"uri": "in"}), engine=LocalEngine(1))
        return Path(built.report), Path(built.report).stat().st_mtime_ns

    as_folder(tmp_path / "in", files_of(6))
    file, first = run()
    assert file == tmp_path / "lake" / "report.html"
    assert '<meta name="imagelake-release" content="1">' in file.read_text(encoding="utf-8")
    assert run() == (file, first), "a build with nothing to do writes no report"

    as_folder(tmp_path / "in", files_of(1, seed=1))
    run()
    assert '<meta name="imagelake-release" content="2">' in file.read_text(encoding="utf-8")
    file.unlink()
    assert run()[0].exists(), "the next build writes a report that is missing"
    with pytest.raises(LakeError, match="always of the newest release"):
        write_report(Lake(tmp_path / "lake", 1))


@pytest.mark.usefixtures("reports")
def test_a_report_that_cannot_be_written_leaves_the_release(tmp_path: Path, run: Run) -> None:
    as_folder(tmp_path / "in", files_of(6))
    lake = tmp_path / "lake"
    (lake / "report.html").mkdir(parents=True)
    (lake / ".lock").touch()
    built = build(recipe(tmp_path, {"uri": "in"}), engine=LocalEngine(1))
    assert (built.release, built.report) == (1, "")
    assert built.report_error.startswith("release 1 is published, but its report is not written. ")
    assert "is a folder" in built.report_error
    assert built.report_error.endswith(f"Then run: imagelake report {lake}")

    done = run("build", lake, "--workers", 1)
    assert done.exit_code == 1
    # The recipe of the test is not the one that the lake stores.
    assert done.stderr == f"imagelake: {built.report_error.replace('release 1', 'release 2')}\n"
    assert "built release 2" in done.stdout
    (lake / "report.html").rmdir()
    assert run("build", lake, "--workers", 1).exit_code == 0
    assert (lake / "report.html").is_file()


def test_an_inferred_recipe_that_cannot_be_written_leaves_the_release(tmp_path: Path, run: Run) -> None:
    as_folder(tmp_path / "in", files_of(6))
    lake = tmp_path / "lake"
    # The draft of the recipe cannot be made.
    (lake / ".recipe.toml.draft").mkdir(parents=True)
    (lake / ".writers").mkdir()
    done = run("build", tmp_path / "in", "--into", lake, "--workers", 1)
    assert done.exit_code == 1
    assert "built release 1" in done.stdout
    assert "the release is published and holds the recipe, but the file cannot be written" in done.stderr
    assert Lake(lake).release == 1
    assert run("build", lake, "--workers", 1).exit_code == 0
