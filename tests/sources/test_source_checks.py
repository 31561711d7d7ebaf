"""What a recipe can ask of a source: a failed check names the class or the file that falls short."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from making import as_folder, as_tar, files_of, recipe, source_of

from pipeline.errors import CheckError
from pipeline.sources import Source, check_classes, check_file, resolve


def asked(tmp_path: Path, **checks: Any) -> Source:
    return source_of(as_folder(tmp_path / "set", files_of(1)), **checks)


def test_checks_that_hold_say_nothing(tmp_path: Path) -> None:
    source = asked(tmp_path, classes=2, min_per_class=3)
    check_classes(source, {"A": 3, "B": 4})
    check_classes(source, {"A": 3, "B": 4, None: 1})
    check_file(source)


@pytest.mark.parametrize("counts", [{"A": 1}, {"A": 1, "B": 1, "C": 1}, {"A": 1, "B": 0}, {"A": 9, None: 9}, {}])
def test_another_number_of_classes_fails(tmp_path: Path, counts: dict[str | None, int]) -> None:
    there = sorted(label for label, count in counts.items() if label and count)
    listed = f"{len(there)} classes .{', '.join(there) or 'none'}., the recipe asks for 2"
    with pytest.raises(CheckError, match=f"d/train .set.: {listed}"):
        check_classes(asked(tmp_path, classes=2), counts)


def test_classes_that_fall_short_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="A has 2, C has 0 images; the recipe asks for at least 3 a class"):
        check_classes(asked(tmp_path, min_per_class=3), {"C": 0, "B": 3, "A": 2, None: 1})


def test_a_source_without_labels_has_no_class_that_is_full(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="no image has a label: 0 images; the recipe asks for at least 3 a class"):
        check_classes(asked(tmp_path, min_per_class=3), {None: 100})


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha256", "sha512"])
def test_a_digest_is_compared_and_both_are_named(tmp_path: Path, kind: str) -> None:
    file = as_tar(tmp_path / "a.tar.gz", files_of(2))
    found = f"{kind}:{hashlib.new(kind, file.read_bytes()).hexdigest()}"
    check_file(source_of(file, digest=found, bytes=file.stat().st_size))
    other = f"{kind}:{'0' * (len(found) - len(kind) - 1)}"
    with pytest.raises(CheckError, match=f"a.tar.gz has {found}, the recipe asks for {other}"):
        check_file(source_of(file, digest=other))


def test_a_byte_size_is_compared_and_both_are_named(tmp_path: Path) -> None:
    file = as_tar(tmp_path / "a.tar.gz", files_of(2))
    size = file.stat().st_size
    with pytest.raises(CheckError, match=f"a.tar.gz has {size} bytes, the recipe asks for {size + 1}"):
        check_file(source_of(file, bytes=size + 1))


@pytest.mark.parametrize("check", [{"bytes": 1}, {"digest": f"md5:{'0' * 32}"}])
def test_what_is_no_file_has_neither_size_nor_digest(tmp_path: Path, check: dict[str, Any]) -> None:
    (glyphs,) = resolve(recipe(tmp_path, {"uri": "glyphs", "format": "glyphs", **check}))
    for source in (asked(tmp_path, **check), glyphs):
        with pytest.raises(CheckError, match="bytes and digest can only be checked for a single file. Remove them"):
            check_file(source)
