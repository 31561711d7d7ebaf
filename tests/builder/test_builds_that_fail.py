"""Bad input of every kind: one line that says what to do, and nothing committed."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
from forked import start_command
from lakes import rows_by_content, versions
from making import as_folder, as_tar, encoded, files_of, pictures, recipe

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import (
    BaselineError,
    CheckError,
    DiskFullError,
    ImagelakeError,
    LakeError,
    MissingExtraError,
    RecipeError,
    SourceError,
    SplitError,
)
from pipeline.lake_handle import Lake

Case = tuple[type[ImagelakeError], str, dict[str, Any]]
SPLIT = {"name": "main", "train": {"from": "train"}}

CASES: dict[str, Case] = {
    "a missing file": (
        SourceError,
        "no file or folder .*gone.tar.gz.*Check the path",
        {"source": {"uri": "gone.tar.gz"}},
    ),
    "a file of no form": (SourceError, "its format is not recognised", {"source": {"uri": "odd.bin"}}),
    "a cut archive": (SourceError, "damaged or cut short .* Nothing was committed", {"source": {"uri": "cut.tar.gz"}}),
    "an empty folder": (SourceError, "holds no files", {"source": {"uri": "empty"}}),
    "too few classes": (
        CheckError,
        r"2 classes \(A, B\), the recipe asks for 10",
        {"source": {"uri": "in", "classes": 10}},
    ),
    "a short class": (
        CheckError,
        "A has 10, B has 10 images; the recipe asks for at least 11",
        {"source": {"uri": "in", "min_per_class": 11}},
    ),
    "a wrong size": (CheckError, "bytes, the recipe asks for 5", {"source": {"uri": "in.tar.gz", "bytes": 5}}),
    "a wrong digest": (
        CheckError,
        "has md5:.*, the recipe asks for md5:0000",
        {"source": {"uri": "in.tar.gz", "digest": "md5:" + "0" * 32}},
    ),
    "an unknown rule": (RecipeError, "did you mean 'sign'", {"dedup": {"rules": ["sing"]}}),
    "a path twice": (SourceError, "1 paths occur more than once, first 'A/x.png'", {"source": {"uri": "twice.tar"}}),
    "splits and a split": (
        RecipeError,
        "split and splits exclude one another",
        {"source": {"uri": "in", "splits": {"test": "A"}}},
    ),
    "a lake that is its source": (RecipeError, "source in: this is lake.root itself", {"lake": {"root": "in"}}),
    "a lake that is a file": (LakeError, "cannot be written to .* another folder", {"lake": {"root": "odd.bin"}}),
    "labels of a folder": (
        RecipeError,
        "labels does not apply to a source of format folder",
        {"source": {"labels": "x"}},
    ),
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    as_folder(tmp_path / "in", files_of(20))
    as_tar(tmp_path / "in.tar.gz", files_of(20))
    as_tar(tmp_path / "twice.tar", {"A/x.png": encoded(pictures(1)[0]), "./A/x.png": encoded(pictures(1)[0])}, "w")
    whole = (tmp_path / "in.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "odd.bin").write_bytes(bytes(range(256)))
    (tmp_path / "empty").mkdir()
    as_folder(tmp_path / "empties", {"A/x.png": b""})
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_a_bad_build_is_one_line_and_commits_nothing(case: str, base: Path) -> None:
    kind, said, change = CASES[case]
    source = dict({"uri": "in", "split": "train", **change.get("source", {})}.items())
    parts = {key: value for key, value in change.items() if key != "source"}
    with pytest.raises(kind, match=said) as caught:
        build(recipe(base, source, **parts), engine=LocalEngine(1))
    assert "\n" not in str(caught.value)
    assert versions(str(base / "lake")) == {}
    assert not [path for path in (base / "lake").rglob("*") if path.is_file() and path.name != ".lock"]


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("kind", "said", "parts"),
    [
        (SplitError, "A 10 of 50, B 10 of 50", {"split": [{"name": "main", "train": {"from": "train", "size": 100}}]}),
        (
            SplitError,
            "takes from 'valid', which has no images",
            {"split": [{"name": "main", "train": {"from": "valid"}}]},
        ),
        (
            BaselineError,
            "has train sizes .100., but the train role of split 'main' keeps 20 images",
            {
                "split": [{**SPLIT, "test": {"from": "train", "size": 2}, "train": {"from": "train", "size": 18}}],
                "baseline": [{"model": "logistic", "split": "main", "train_sizes": [100]}],
            },
        ),
        (
            BaselineError,
            "has train sizes .100.",
            {
                "split": [{**SPLIT, "test": {"from": "train", "size": 2}}],
                "baseline": [{"model": "logistic", "split": "main", "train_sizes": [100, 10]}],
            },
        ),
    ],
)
def test_a_later_stage_that_fails_leaves_the_last_release(
    kind: type[ImagelakeError], said: str, parts: dict[str, Any], base: Path
) -> None:
    made = build(recipe(base, {"uri": "in"}), engine=LocalEngine(1))
    before = Lake(made.root).scan("images").collect()
    said = said.replace("keeps 20", "keeps 18")
    with pytest.raises(kind, match=said):
        build(recipe(base, {"uri": "in"}, **parts), engine=LocalEngine(1))
    assert Lake(made.root).release == 1
    assert Lake(made.root).scan("images").collect().equals(before)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of its own, of a given size."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False, capture_output=True
        ).returncode:
            pytest.skip("a small file system cannot be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    "kilobytes", [4, 120, 280, *(pytest.param(size, marks=pytest.mark.stress) for size in (40, 200))]
)
def test_a_full_disk_at_any_moment(kilobytes: int, base: Path, tiny_disk: Callable[[str], Path]) -> None:
    disk = tiny_disk("16m")
    parts: dict[str, Any] = {"dedup": {"rules": ["exact", "sign"]}, "split": [SPLIT]}
    small = recipe(base, {"uri": "in"}, lake={"root": str(disk / "lake")}, **parts)
    build(small, engine=LocalEngine(1))
    before = Lake(disk / "lake").scan("images").collect()
    as_folder(base / "in", files_of(400, seed=5))
    room = disk / "fill"
    free = int(
        subprocess.run(["df", "--output=avail", "-k", disk], check=True, capture_output=True, text=True).stdout.split()[
            1
        ]
    )
    room.write_bytes(b"x" * 1024 * (free - kilobytes))
    with pytest.raises(DiskFullError, match="free some space and build again"):
        build(small, engine=LocalEngine(1))
    assert Lake(disk / "lake").scan("images").collect().equals(before)
    room.unlink()
    build(small, engine=LocalEngine(1))
    fresh = small.model_copy(update={"lake": small.lake.model_copy(update={"root": str(base / "fresh")})})
    build(fresh, engine=LocalEngine(1))
    for table in ("images", "index", "clusters", "splits", "shards", "rejects"):
        assert rows_by_content(str(disk / "lake"), table).equals(rows_by_content(str(base / "fresh"), table)), table


def test_a_baseline_whose_roles_are_of_two_sizes_says_so(base: Path) -> None:
    as_folder(base / "small", {f"{name}/x.png": encoded(pictures(1, size=(2, 3))[0]) for name in "AB"})
    asked = recipe(
        base,
        {"uri": "in"},
        {"uri": "small", "split": "test"},
        split=[{**SPLIT, "test": {"from": "test"}}],
        baseline=[{"model": "logistic", "split": "main", "train_sizes": [10]}],
    )
    with pytest.raises(BaselineError, match=r"\(train 28x28x1, test 2x3x1\). Set decode.size"):
        build(asked, engine=LocalEngine(1))


def test_the_command_says_one_line_and_exits_with_1(base: Path) -> None:
    (base / "r.toml").write_text('[lake]\nroot = "lake"\n[[source]]\nuri = "gone"\ndataset = "d"\nsplit = "s"\n')
    with TemporaryFile() as printed, TemporaryFile() as shown:
        command = start_command("build", base / "r.toml", stdout=printed.fileno(), stderr=shown.fileno())
        assert command.wait() == 1
        printed.seek(0)
        shown.seek(0)
        assert printed.read() == b""
        said = shown.read().decode()
    assert said.startswith("imagelake: no file or folder")
    assert said.count("\n") == 1


def test_a_build_of_nothing_but_rejects_names_them_before_any_split(base: Path) -> None:
    said = r"1 file became rejects. 1 empty: A/x.png \(the file has no bytes\)"
    with pytest.raises(SourceError, match=said):
        build(recipe(base, {"uri": "empties"}, split=[SPLIT]), engine=LocalEngine(1))


def test_a_model_without_its_library_stops_the_build_before_anything_is_read(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    split = {**SPLIT, "test": {"from": "test"}}
    asked = recipe(base, {"uri": "nowhere"}, split=[split], baseline=[{"model": "dense", "split": "main"}])
    with pytest.raises(MissingExtraError, match=r"'dense' on split 'main' needs torch.*pip install torch"):
        build(asked, engine=LocalEngine(1))
    assert not (base / "lake").exists()
