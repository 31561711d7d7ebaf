"""`imagelake show`: find single images by path, id or row, draw them, and write them as PNG files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Run
from damaged_lakes import Case
from making import as_folder, encoded, pictures, recipe
from PIL import Image

from pipeline.builder.build import build
from pipeline.cli.images import draw
from pipeline.engines.local import LocalEngine
from pipeline.errors import DamagedLakeError, LakeError
from pipeline.lake_handle import Lake
from pipeline.search.images import find_images

EVIL = "A/\x1b[2J\u202egnp.png"
LABEL = "../<b>\x1b[31m"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Pictures in folders, the same path in two splits, a CSV file of pixels, and a list with a hostile label."""
    base = tmp_path_factory.mktemp("show")
    made = pictures(8, size=(5, 5))
    files = {"A/1.png": encoded(made[0]), EVIL: encoded(made[1]), "A/empty.png": b"", "2.png": encoded(made[2])}
    as_folder(base / "train", {**files, "A/copy.png": encoded(made[0])})
    as_folder(base / "test", {"A/1.png": encoded(made[3])})
    rows = [f"{label},{','.join(map(str, pixels.ravel()))}" for label, pixels in zip("357", made[4:7], strict=True)]
    (base / "rows.csv").write_text("\n".join([f"label,{','.join(f'pixel{n}' for n in range(25))}", *rows]) + "\n")
    as_folder(base / "listed", {"x.png": encoded(made[7])})
    (base / "listed" / "list.csv").write_text(f'path,label\nx.png,"{LABEL}"\n')
    split = {
        "name": "main",
        "sanitize": "exact",
        "within": "first",
        "train": {"from": "train"},
        "test": {"from": "test"},
    }
    build(
        recipe(
            base,
            {"uri": "train"},
            {"uri": "test", "split": "test"},
            {"uri": "rows.csv", "dataset": "rows"},
            {"uri": "listed/list.csv", "dataset": "listed"},
            dedup={"rules": ["exact"]},
            split=[split],
            attributes=[{"dataset": "d", "patterns": {"class": "(.)/", "name": "([a-z0-9]+).png"}}],
        ),
        engine=LocalEngine(1),
    )
    return str(base / "lake")


def found(run: Run, *words: object) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(run("show", *words, "--json").stdout)["images"]
    return rows


def test_the_attributes_of_an_image_are_shown(root: str, run: Run) -> None:
    (row,) = found(run, root, "A/copy.png")
    assert row["attributes"] == [{"name": "class", "value": "A"}, {"name": "name", "value": "copy"}]
    assert "class: A; name: copy" in " ".join(run("show", root, "A/copy.png").stdout.replace("│", " ").split())
    assert "attributes" not in run("show", root, "x.png").stdout


def test_a_path_that_two_sources_have_is_shown_for_both(root: str, run: Run) -> None:
    rows = found(run, root, "A/1.png")
    assert [(row["dataset"], row["split"], row["path"], row["label"]) for row in rows] == [
        ("d", "test", "A/1.png", "A"),
        ("d", "train", "A/1.png", "A"),
    ]
    assert [row["split"] for row in found(run, root, "A/1.png", "--split", "train")] == ["train"]
    assert [row["dataset"] for row in found(run, root, "A/1.png", "--dataset", "d", "--split", "test")] == ["d"]


def test_an_id_is_found_in_either_case_and_every_image_is_shown_once(root: str, run: Run) -> None:
    (row,) = found(run, root, "A/1.png", "--split", "train")
    for name in (row["image_id"], row["image_id"].upper()):
        assert [one["path"] for one in found(run, root, name)] == ["A/1.png"]
    both = found(run, root, "2.png", row["image_id"], "A/1.png", "2.png")
    assert [(one["item"], one["split"]) for one in both] == [
        ("2.png", "train"),
        (row["image_id"], "train"),
        ("A/1.png", "test"),
    ]


def test_a_row_of_a_csv_file_is_named_by_its_number(root: str, run: Run) -> None:
    rows = found(run, root, 2, 0)
    assert [(row["path"], row["label"], row["dataset"]) for row in rows] == [("2", "7", "rows"), ("0", "3", "rows")]


def test_roles_say_what_sanitizing_did(root: str, run: Run) -> None:
    (kept,), (copy,) = (row["roles"] for row in found(run, root, "A/1.png", "A/copy.png", "--split", "train"))
    assert (kept["split_name"], kept["role"], copy["role"]) == ("main", "train", "train")
    assert sorted([kept["kept"], copy["kept"]]) == [False, True]
    gone = kept if copy["kept"] else copy
    assert (gone["dropped_by"], gone["reason"]) == ("exact", "repeat")
    text = run("show", root, "A/1.png", "A/copy.png", "--split", "train").stdout
    assert "main: train, dropped by exact (repeat)" in " ".join(text.replace("│", " ").replace("┆", " ").split())


def test_pictures_are_written_as_they_are_stored(root: str, run: Run, tmp_path: Path) -> None:
    words = ("A/1.png", 1, "x.png", "2.png")
    lines = run("show", root, *words, "--png", tmp_path / "new" / "out").stdout.splitlines()
    rows = found(run, root, *words, "--png", tmp_path / "new" / "out")
    files = [Path(row["file"]) for row in rows]
    assert [line for line in lines if line.startswith(str(tmp_path))] == list(map(str, files))
    assert [file.name.rpartition("-")[0] for file in files] == [
        "A",
        "A",
        "5",
        "%2E.%2F%3Cb%3E%1B%5B31m",
        "_unlabelled",
    ]
    assert {file.parent for file in files} == {tmp_path / "new" / "out"}
    made = pictures(8, size=(5, 5))
    for file, wanted in zip(files, made[[3, 0, 5, 7, 2]], strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), wanted)
    # Again, over the same files.
    assert sorted(file.name for file in (tmp_path / "new" / "out").iterdir()) == sorted(file.name for file in files)


def test_a_picture_is_drawn_below_its_label(root: str, run: Run) -> None:
    lines = run("show", root, "2.png").stdout.splitlines()
    start = lines.index("2.png: no label")
    assert lines[start + 1 :] == list(draw(pictures(3, size=(5, 5))[2]))
    many = run("show", root, 0, 1, 2, "2.png", "x.png", "A/copy.png")
    assert "5 of 6 images drawn; --png DIR writes all." in many.stderr
    assert "A/copy.png: A" not in many.stdout


def test_the_brighter_the_denser_and_large_or_coloured_images_fit() -> None:
    assert list(draw(np.array([[0, 25, 26, 255], [255, 0, 0, 0]], np.uint8))) == ["    ..@@", "@@"]
    wide = list(draw(np.full((100, 400, 3), 255, np.uint8)))
    assert [len(line) for line in wide] == [64] * 8


def test_images_of_several_shapes_and_in_colour_are_written(
    mixed_lake: Lake, rgb_lake: Lake, run: Run, tmp_path: Path
) -> None:
    for lake in (mixed_lake, rgb_lake):
        stored = lake.scan("images").sort("path").collect()
        rows = found(run, lake.root, *stored["path"], "--png", tmp_path / lake.root[-3:])
        for row, one in zip(rows, stored.rows(named=True), strict=True):
            assert (row["path"], row["label"]) == (one["path"], one["label"])
            assert np.asarray(Image.open(row["file"])).tobytes() == one["pixels"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("1.png",), "has no image with the path, id or digest '1.png'; did you mean 'A/1.png'?"),
        (("./A/1.png",), "'./A/1.png'; did you mean 'A/1.png'?"),
        (("/data/train/A/copy.png",), "; did you mean 'A/copy.png'?"),
        (("A/empty.png",), "'A/empty.png': d/train has this file as a reject, empty: "),
        (("A/1.png", "--split", "main"), "in split 'main'. These sources have it: d/test, d/train."),
        (("A/1.png", "--dataset", "x", "--split", "y"), "in dataset 'x' and split 'y'. These sources have it: "),
        (("0" * 32,), f"'{'0' * 32}'. List the paths, which are like '"),
        (("3", "2.png", "4"), "'3', and none for 1 more. List the paths"),
        (("%", "_"), "'%', and none for 1 more. List the paths"),
    ],
)
def test_what_is_not_there_is_an_error_that_says_what_is(
    root: str, run: Run, words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(LakeError) as caught:
        run("show", root, *words)
    assert message in str(caught.value)


def test_names_of_strangers_do_not_reach_the_terminal_raw(root: str, run: Run) -> None:
    for words in ((EVIL,), ("x.png",), (EVIL, "--json")):
        text = run("show", root, *words).output
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "A/\\x1b[2J\\u202egnp.png: A" in run("show", root, EVIL).stdout


def test_arguments_that_are_not_utf8_are_an_error_like_others(root: str) -> None:
    with pytest.raises(LakeError, match="no image"):
        find_images(Lake(root), ["\udcff.png"], dataset="\udcff")


def test_pictures_are_written_only_to_folders_outside_of_tables(root: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (f"{root}/images", tmp_path / "file", "s3://bucket/x"):
        with pytest.raises(LakeError, match=r"Name a(nother)? (file|folder)"):
            run("show", root, "2.png", "--png", folder)


def test_a_damaged_picture_is_an_error(case: Case, run: Run) -> None:
    lake = Lake(case.root)
    row = lake.scan("images").select("path", "image_id").collect().row(0, named=True)
    file = Path(lake.snapshot.file_places("images")[0])
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(DamagedLakeError):
        run("show", case.root, row["image_id"].hex())


def test_an_older_release_is_shown(root: str, run: Run) -> None:
    assert json.loads(run("show", root, "2.png", "--release", 1, "--json").stdout)["release"] == 1
    with pytest.raises(LakeError, match="release 7"):
        run("show", root, "2.png", "--release", 7)
