"""A build says what it read of every source, and refuses to end with nothing."""

import unicodedata
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import Run
from making import as_folder, as_tar, encoded, files_of, pictures, recipe

from pipeline.builder.build import Built, build
from pipeline.engines.local import LocalEngine
from pipeline.errors import SourceError
from pipeline.lake_handle import Lake
from pipeline.recipe import Recipe
from pipeline.sources.labels import normal_label

IMAGES = [encoded(array) for array in pictures(12, size=(8, 8))]


def made(made_recipe: Recipe) -> Built:
    return build(made_recipe, engine=LocalEngine(1))


def test_every_source_has_a_line_with_its_labels(tmp_path: Path) -> None:
    as_folder(tmp_path / "one", {"A/1.png": IMAGES[0], "B/1.png": IMAGES[1], "2.png": IMAGES[2], "A/x.txt": b"x"})
    as_tar(tmp_path / "two.tar", {"3.png": IMAGES[3]})
    both = recipe(tmp_path, {"uri": "one"}, {"uri": "two.tar", "split": "test"})
    built = made(both)
    assert [source.line() for source in built.sources] == [
        "d/train (one): 3 images, 2 labelled, 1 unlabelled, 2 classes, 1 reject",
        "d/test (two.tar): 1 image, 0 labelled, 1 unlabelled, 0 classes",
    ]
    # A build with nothing to do says the same.
    assert made(both).sources == built.sources


def test_files_of_one_pattern_are_one_line(tmp_path: Path) -> None:
    for number in range(3):
        as_tar(tmp_path / f"part-{number}.tar", {f"A/{number}.png": IMAGES[number]})
    built = made(recipe(tmp_path, {"uri": "part-*.tar"}))
    assert [source.line() for source in built.sources] == [
        "d/train (part-*.tar): 3 images, 3 labelled, 0 unlabelled, 1 class"
    ]


@pytest.mark.parametrize(
    ("label", "normal"),
    [
        ("cat ", "cat"),
        ("\tcat\u00a0", "cat"),
        (unicodedata.normalize("NFD", "Größe"), "Größe"),
        ("1.0", "1"),
        ("7.000", "7"),
        ("-3.0", "-3"),
        ("01", "01"),
        ("01.0", "01"),
        ("1.5", "1.5"),
        ("v1.0", "v1.0"),
        (" ", None),
        (None, None),
    ],
)
def test_labels_have_one_spelling(label: str | None, normal: str | None) -> None:
    assert normal_label(label) == normal
    assert normal_label(normal) == normal


def test_classes_that_differ_in_spelling_alone_are_one_and_it_is_said(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Bär") for form in ("NFC", "NFD"))
    as_tar(
        tmp_path / "a.tar", {f"{composed}/1.png": IMAGES[0], f"{decomposed}/2.png": IMAGES[1], "cat /3.png": IMAGES[2]}
    )
    (tmp_path / "b.csv").write_text("path,label\ncat/4.png,1.0\ncat/5.png,2\n")
    as_folder(tmp_path / "cat", {"4.png": IMAGES[3], "5.png": IMAGES[4]})
    np.savez(tmp_path / "c.npz", images=pictures(2, 9, (8, 8)), labels=np.array(["1", "2 "]))
    built = made(recipe(tmp_path, {"uri": "a.tar"}, {"uri": "b.csv", "split": "b"}, {"uri": "c.npz", "split": "c"}))
    labels = Lake(built.root).scan("images").group_by("label").len().sort("label").collect().rows()
    assert labels == [("1", 2), ("2", 2), ("Bär", 2), ("cat", 1)]
    notes = [note for note in built.notes if "is read as" in note]
    assert len(notes) == 3
    assert "'cat ' is read as 'cat'" in notes[0]
    assert "'1.0' is read as '1'" in notes[1]


def test_a_build_without_any_image_commits_nothing_and_names_reasons(tmp_path: Path, run: Run) -> None:
    files = {f"A/{n}.png": b"no image" for n in range(7)} | {"B/1.png": b"", "B/.DS_Store": b"x"}
    as_folder(tmp_path / "set", files)
    (tmp_path / "r.toml").write_text('[lake]\nroot = "lake"\n[[source]]\nuri = "set"\n')
    with pytest.raises(SourceError) as caught:
        run("build", tmp_path / "r.toml", "--workers", 1)
    said = str(caught.value)
    assert "no image could be read. 8 files became rejects. 7 not_an_image: A/0.png, A/1.png, A/2.png" in said
    assert "A/5.png" not in said
    assert "1 empty: B/1.png (the file has no bytes)" in said
    assert "\n" not in said
    assert not list((tmp_path / "lake").rglob("*.parquet"))
    assert not (tmp_path / "lake" / "images").exists()


def test_a_build_that_would_take_the_last_image_away_is_refused(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", {"A/1.png": IMAGES[0]})
    made(recipe(tmp_path, {"uri": "set"}))
    (tmp_path / "set" / "A" / "1.png").write_bytes(b"broken")
    with pytest.raises(SourceError, match="1 not_an_image: A/1.png"):
        made(recipe(tmp_path, {"uri": "set"}))
    assert len(Lake(tmp_path / "lake").scan("images").collect()) == 1


def test_more_rejects_than_one_in_a_hundred_are_reported(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", {**files_of(98), "A/x.txt": b"x"})
    built = made(recipe(tmp_path, {"uri": "set"}))
    assert any(note.startswith("1 of 99 files (1.0%) are rejects: 1 not_an_image.") for note in built.notes)
    as_folder(tmp_path / "set", {**files_of(120), "A/Thumbs.db": b"x"})
    assert not [note for note in made(recipe(tmp_path, {"uri": "set"})).notes if "rejects" in note]


def test_a_table_beside_images_without_labels_is_named(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", {"1.png": IMAGES[0], "2.png": IMAGES[1], "labels.csv": b"id,label\n1,cat\n2,dog\n"})
    built = made(recipe(tmp_path, {"uri": "set"}))
    assert any("are next to labels.csv, which may contain labels" in note for note in built.notes)
    as_folder(tmp_path / "named", {"A/1.png": IMAGES[0], "B/1.png": IMAGES[1], "A/notes.csv": b"x"})
    assert not [note for note in made(recipe(tmp_path, {"uri": "named"}, lake={"root": "b"})).notes if "labels" in note]


def test_splits_of_a_tar_that_are_read_as_one_are_named(tmp_path: Path) -> None:
    as_tar(tmp_path / "x.tar.gz", {"train/A/1.png": IMAGES[0], "test/A/1.png": IMAGES[1]})
    built = made(recipe(tmp_path, {"uri": "x.tar.gz"}))
    assert any("train/, test/ are all read as split 'train'" in note for note in built.notes)


def test_a_release_keeps_the_counts(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", {"A/1.png": IMAGES[0]})
    made(recipe(tmp_path, {"uri": "set"}))
    shards = Lake(tmp_path / "lake").scan("shards").select(pl.sum("rows")).collect().item()
    assert shards == 1


def test_a_class_called_images_beside_a_table_is_suspicious(tmp_path: Path) -> None:
    files = {"images/1.png": IMAGES[0], "images/2.png": IMAGES[1], "labels.csv": b"f,l\n", "more.zip": b"PK"}
    as_folder(tmp_path / "set", files)
    notes = made(recipe(tmp_path, {"uri": "set"})).notes
    assert any("are next to labels.csv, which may contain labels" in note for note in notes)
    assert any("not read: more.zip" in note for note in notes)


def test_what_a_file_holds_beside_its_splits_is_named(tmp_path: Path) -> None:
    some, more, y = pictures(4, 1, (8, 8)), pictures(4, 2, (8, 8)), np.arange(4)
    np.savez(tmp_path / "n.npz", x_train=some, y_train=y, x_extra=more, y_extra=y)
    (tmp_path / "l.csv").write_text("path,label,split\na.png,A,train\nb.png,B,test\n")
    (tmp_path / "a.png").write_bytes(IMAGES[0])
    (tmp_path / "b.png").write_bytes(IMAGES[1])
    notes = made(
        recipe(tmp_path, {"uri": "n.npz", "split": None}, {"uri": "l.csv", "split": None, "dataset": "l"})
    ).notes
    assert any("x_extra" in note and "is not read" in note for note in notes)
    assert any("column 'split' of the list is not read" in note for note in notes)


def test_another_lake_in_a_source_is_no_data(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", {"A/1.png": IMAGES[0], "B/1.png": IMAGES[1]})
    made(recipe(tmp_path, {"uri": "set"}, lake={"root": "set/sub/one"}))
    built = made(recipe(tmp_path, {"uri": "set"}, lake={"root": "two"}))
    assert built.images == 2
    rejects = Lake(built.root).scan("rejects").select("reason", "detail").unique().collect().rows()
    assert rejects == [("system_file", "in a lake of imagelake, which is no source")]
    assert not [note for note in built.notes if "rejects" in note or "not read" in note]
