"""The report beside the tables: every build with something to do writes it anew."""

from pathlib import Path

import pytest
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
