"""Names, labels and contents of strangers, in every kind of source: all are rows, and none reaches out of the lake.

`make stress` tries 20,000; the ordinary run a few of each source.
"""

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile import HARM
from hostile_sources import FILES, FORMS, Made, write_source
from making import recipe

from pipeline import cli
from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake
from pipeline.verify import verify

pytestmark = pytest.mark.slow

Tally = Counter[tuple[str, str]]
Printed = Callable[..., None]
COMMANDS = (
    ("status",),
    ("overlap",),
    ("overlap", "--rule", "exact", "--clusters"),
    ("sql", "select path, label, reason, detail from rejects"),
    ("sql", "select path, label from images"),
    ("history",),
)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with everything in it that could be written to by mistake."""
    for name in ("home", "temporary", "here", "outside"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path
    assert not list(Path("/").glob("imagelake-hostile*"))


@pytest.fixture
def prints_harmlessly(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Printed:
    """Run a command and hold what it prints to being harmless."""

    def run(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["imagelake", *words])
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capfdbinary.readouterr()
        assert (stopped.value.code, err) in {(0, b""), (None, b"")}
        assert HARM.findall(out.decode().replace("\n", "")) == []

    return run


def listing(folder: Path) -> dict[bytes, tuple[int, int, int]]:
    """All there is below a folder but the lake: mode, size and time."""
    case = os.fsencode(folder / "case")
    found: dict[bytes, tuple[int, int, int]] = {}
    for at, folders, files in os.walk(os.fsencode(folder)):
        if at == case:
            folders[:] = [name for name in folders if name != b"lake"]
        paths = [os.path.join(at, name) for name in (*folders, *files)]  # noqa: PTH118 - bytes
        seen = {path: os.lstat(path) for path in paths if path != case}
        found |= {path: (one.st_mode, one.st_size, one.st_mtime_ns) for path, one in seen.items()}
    return found


def judge(number: int, base: Path, tally: Tally, printed: Printed | None) -> None:
    """Build a lake of one source, and hold it to all that is promised."""
    case = base / "case"
    case.mkdir()
    (case / "outside").mkdir()
    (case / "outside" / "kept.txt").write_text("kept")
    made = write_source(case, number)
    before = listing(base)
    root = case / "lake"
    try:
        _build(made, case, tally)
        if printed is not None:
            for command, *rest in COMMANDS:
                printed(command, str(root), *rest)
    except BaseException as error:
        raise AssertionError(f"source {number}, a {made.form}: {error!r}") from error
    assert listing(base) == before


def _build(made: Made, case: Path, tally: Tally) -> None:
    part = {"uri": made.file, "format": made.form}
    built = build(recipe(case, part, dedup={"rules": ["exact", "sign"]}), engine=LocalEngine(1))
    lake = Lake(built.root)
    paths = [path for table in ("images", "rejects") for path in lake.scan(table).collect()["path"]]
    assert len(paths) == len(set(paths)) == built.images + built.rejects == made.files
    assert [fault for check in verify(built.root) for fault in check.faults] == []
    tally[made.form, "image"] += built.images
    for reason in lake.scan("rejects").collect()["reason"]:
        tally[made.form, f"reject: {reason}"] += 1


@pytest.mark.parametrize("sources", [len(FORMS), pytest.param(20_000 // FILES, marks=pytest.mark.stress)])
def test_hostile_sources(
    sources: int, base: Path, prints_harmlessly: Printed, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    tally: Tally = Counter()
    for number in range(sources):
        # Commands are slower than builds: for one source of each form in so many.
        printed = prints_harmlessly if number // len(FORMS) % 8 == 0 else None
        judge(number, base, tally, printed)
        shutil.rmtree(os.fsencode(base / "case"))
    with capfdbinary.disabled():
        print()  # noqa: T201 - the counts are the point
        for (form, outcome), count in sorted(tally.items()):
            print(f"{form:>10}  {outcome:<28}{count:>8,}")  # noqa: T201
