"""20,000 damaged inputs: every one ends as a row, a reject or a clear error. No crash, hang, noise or leak.

`make stress` runs them all; the ordinary run takes a sample.
"""

import faulthandler
import gc
import gzip
import logging
import signal
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from damaged_sources import damaged
from lakes import versions
from making import as_folder, recipe, shard_of, source_of

from pipeline.builder.build import build
from pipeline.decode import Originals, decode_shard, rejects_table
from pipeline.engines.local import LocalEngine
from pipeline.errors import ImagelakeError
from pipeline.recipe import DecodePart
from pipeline.shard import Encoded, Reject
from pipeline.sources import read, survey
from pipeline.verify import verify

pytestmark = pytest.mark.slow

IMAGES = {"png": 6_000, "jpeg": 5_000}
SOURCES = {"idx": 2_000, "csv": 2_000, "zip": 2_000, "tar": 2_000, "tar.gz": 1_000}
FILES_A_SHARD = 50
SPECS = (
    DecodePart(mode="L", on_mismatch="reject"),
    DecodePart(mode="L", on_mismatch="reject", size=(28, 28)),
    DecodePart(mode="RGB", on_mismatch="convert", size=(9, 7)),
    DecodePart(mode="RGB", on_mismatch="convert", max_pixels=1_000_000),
)
# How an input can be asked for: by what it looks like, as what it was, or as far as it goes.
ASKED: dict[str, Sequence[dict[str, Any]]] = {
    "idx": ({}, {"format": "idx"}),
    "csv": ({}, {"format": "csv"}),
    "zip": ({}, {"format": "zip"}),
    "tar": ({}, {"format": "tar"}, {"format": "tar", "truncated": "keep"}),
    "tar.gz": ({}, {"format": "tar"}, {"format": "tar", "truncated": "keep"}),
}
SECONDS = 10
Tally = Counter[tuple[str, str]]


class Hung(BaseException):
    """Out of time: nothing that catches errors catches it."""


@contextmanager
def in_time(seconds: int) -> Iterator[None]:
    """Raise Hung when the time is up; where Python itself does not get a turn, end the process a while later."""

    def hung(*_: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, hung)
    # Again every second: one that is raised where nobody can catch it, as in a finaliser, is lost.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    faulthandler.dump_traceback_later(6 * seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def decoded_rows(shard: Encoded, spec: DecodePart) -> list[str]:
    """Decode a shard and hold law 1: the outcome of each of its files, once."""
    paths: list[str] = []
    outcomes: list[str] = []
    for item in decode_shard(shard, "d", "train", spec):
        assert not isinstance(item, Originals)
        if isinstance(item, Reject):
            rejects_table([item], "s", "d", "train")
        found = [item.path] if isinstance(item, Reject) else item.images["path"].to_pylist()
        outcomes += [f"reject: {item.reason}" if isinstance(item, Reject) else "image"] * len(found)
        paths += found
    assert sorted(paths) == sorted([*shard.paths, *(refused.path for refused in shard.rejects)])
    return outcomes


def judge_images(kind: str, numbers: Sequence[int], tally: Tally) -> None:
    """Decode damaged files as one shard; where that fails, one by one, to name the one."""
    shard = shard_of(*(damaged(kind, number) for number in numbers))
    spec = SPECS[numbers[0] // FILES_A_SHARD % len(SPECS)]
    try:
        with in_time(SECONDS):
            tally.update((kind, outcome) for outcome in decoded_rows(shard, spec))
    except BaseException as error:
        for number in numbers if len(numbers) > 1 else ():
            judge_images(kind, [number], Counter())
        raise AssertionError(f"{kind} {numbers[0]} with {spec}: {error!r}") from error


def judge_source(kind: str, number: int, folder: Path, tally: Tally) -> None:
    """Read a damaged file as a source and decode it, or get an error that names it in one line."""
    data = damaged(kind, number)
    file = folder / ("t-images-idx3-ubyte" if kind == "idx" else f"in.{kind}")
    file.write_bytes(data)
    if kind == "idx" and number % 2:
        (folder / "t-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x1e" + bytes(30 + number % 3 // 2))
    asked = ASKED[kind][number % len(ASKED[kind])]
    try:
        with in_time(SECONDS):
            source = source_of(file, **asked)
            survey(source)
            rows = [row for shard in read(source) for row in decoded_rows(shard, SPECS[0])]
            wanted = counted(source.format, data) if "truncated" not in asked else []
        assert not wanted or len(rows) in wanted, f"{len(rows)} rows of {wanted}"
        tally.update([(kind, "source read"), *((kind, row) for row in rows)])
    except ImagelakeError as error:
        assert "\n" not in str(error)  # noqa: PT017 - the other right end
        assert file.name in str(error)  # noqa: PT017
        tally[kind, f"source refused: {type(error).__name__}"] += 1
    except BaseException as error:
        raise AssertionError(f"{kind} {number} as {asked}: {error!r}") from error
    finally:
        (folder / "t-labels-idx1-ubyte").unlink(missing_ok=True)


def counted(form: str, data: bytes) -> list[int]:
    """Count what a source holds in another way than its reader; nothing where the other way does not know."""
    try:
        plain = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        if form == "idx":
            return [int.from_bytes(plain[4:8])]
        if form == "csv":
            lines = sum(bool(line.strip()) for line in plain.split(b"\n"))
            return [lines, lines - 1]
        if form == "zip":
            with zipfile.ZipFile(BytesIO(data)) as archive:
                return [sum(not info.is_dir() for info in archive.infolist())]
        with tarfile.open(fileobj=BytesIO(plain), errors="surrogateescape") as tar:
            members = tar.getmembers()
            # It takes a header of which anything is odd for the end.
            whole = not plain[tar.offset : tar.offset + 512].strip(b"\0")
            return [sum(not info.isdir() for info in members)] if whole else []
    except (tarfile.TarError, zipfile.BadZipFile, ValueError, OSError, EOFError, zlib.error):
        return []


def judge_build(number: int, folder: Path, tally: Tally) -> None:
    """Build a lake of damaged images, every other time with a damaged source: it is sound, or there is none."""
    kind = list(SOURCES)[number // 2 % len(SOURCES)]
    images = {f"A/{at}.{form}": damaged(form, 10 * number + at) for form in IMAGES for at in range(5)}
    as_folder(folder / "in", images)
    (folder / f"in.{kind}").write_bytes(damaged(kind, number))
    uris = [{"uri": "in"}, {"uri": f"in.{kind}", "split": "test"}][: 1 + number % 2]
    asked = recipe(folder, *uris, dedup={"rules": ["exact", "sign"]})
    try:
        with in_time(6 * SECONDS):
            made = build(asked, engine=LocalEngine(1))
        assert made.images + made.rejects >= len(images) + number % 2
        assert all(not check.faults for check in verify(made.root))
        tally["build", "built"] += 1
    except ImagelakeError as error:
        assert versions(str(folder / "lake")) == {}
        assert {path.name for path in (folder / "lake").rglob("*") if path.is_file()} <= {".lock"}
        tally["build", f"refused: {type(error).__name__}"] += 1
    except BaseException as error:
        raise AssertionError(f"build {number}: {error!r}") from error


def open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def clean(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Tally], None]:
    """Hand out a function that holds a run to silence and tidiness, and prints its counts."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    def check(tally: Tally) -> None:
        # Nobody listens in a build: a record that no handler keeps from the root would be printed.
        printed = [record for record in caplog.records if logging.getLogger(record.name).propagate]
        assert (capfd.readouterr(), printed) == (("", ""), [])
        assert list(temporary.iterdir()) == []
        with capfd.disabled():
            print()  # noqa: T201 - the counts are the point
            for (kind, outcome), count in sorted(tally.items()):
                print(f"{kind:>8}  {outcome:<32}{count:>8,}")  # noqa: T201

    return check


def run_inputs(folder: Path, share: int) -> Tally:
    """Judge one in `share` of all inputs."""
    tally: Tally = Counter()
    for kind, count in IMAGES.items():
        for start in range(0, count // share, FILES_A_SHARD):
            judge_images(kind, range(start, min(start + FILES_A_SHARD, count // share)), tally)
    for kind, count in SOURCES.items():
        for number in range(count // share):
            judge_source(kind, number, folder, tally)
    return tally


@pytest.mark.parametrize("share", [100, pytest.param(1, marks=pytest.mark.stress)])
def test_damaged_inputs(share: int, tmp_path: Path, clean: Callable[[Tally], None]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    run_inputs(folder, 500)  # what libraries open once, they may keep
    before = open_files()
    clean(run_inputs(folder, share))
    assert open_files() == before
    assert len(list(folder.iterdir())) == len(SOURCES)


# Those with odd numbers have a damaged source too, each kind in turn.
@pytest.mark.parametrize("builds", [range(1, 10, 2), pytest.param(range(300), marks=pytest.mark.stress)])
def test_damaged_inputs_in_builds(builds: Sequence[int], tmp_path: Path, clean: Callable[[Tally], None]) -> None:
    tally: Tally = Counter()
    for number in builds[:1]:  # what libraries open once, they may keep
        judge_build(number, tmp_path / f"warm{number}", Counter())
    before = open_files()
    for number in builds:
        judge_build(number, tmp_path / str(number), tally)
    clean(tally)
    assert open_files() == before
