"""`imagelake build PATH...` and `imagelake init PATH...`: a lake without a recipe, and the recipe it would have."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import Result
from commands import Run
from examples import slow_but
from making import as_folder, as_tar, as_zip, encoded, pictures

from pipeline.errors import LakeError, RecipeError, SourceError
from pipeline.lake_handle import Lake
from pipeline.recipe import read_recipe

IMAGES = [encoded(array) for array in pictures(40, size=(8, 8))]
CLASSES = {f"{'AB'[i % 2]}/{i}.png": data for i, data in enumerate(IMAGES[:20])}
ROLES = {f"train/{path}": data for path, data in CLASSES.items()} | {
    f"test/{'AB'[i % 2]}/{i}.png": data for i, data in enumerate(IMAGES[20:30])
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lakes appear in the current folder."""
    monkeypatch.chdir(tmp_path)


def counts(lake: str | Path) -> dict[str, int]:
    rows = Lake(lake).scan("images").group_by("dataset", "split").len().collect().rows()
    return {f"{dataset}/{split}": number for dataset, split, number in sorted(rows)}


def roles(lake: str | Path) -> dict[str, int]:
    return dict(Lake(lake).scan("splits").group_by("role").len().sort("role").collect().rows())


def good(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def test_a_folder_of_class_folders_is_built_by_its_name_alone(tmp_path: Path, run: Run) -> None:
    as_folder(tmp_path / "letters", CLASSES)
    result = good(run("build", "letters", "--workers", 1))
    assert counts("letters-lake") == {"letters/train": 20}
    assert f"letters/train ({tmp_path}/letters): 20 images, 20 labelled, 0 unlabelled, 2 classes" in result.output
    assert f'uri = "{tmp_path}/letters"' in result.output
    # Equal shares of train, for want of another role.
    assert roles("letters-lake") == {"train": 16, "valid": 2, "test": 2}
    # The same words again, and the lake by its name, have nothing to do.
    for words in (("letters",), ("letters-lake",)):
        assert "nothing to do; release 1" in good(run("build", *words, "--workers", 1)).output
    assert (tmp_path / "letters-lake" / "recipe.toml").read_text().startswith("# A recipe of imagelake")


@pytest.mark.parametrize("make", slow_but([as_tar], [as_folder, as_tar, as_zip]))
def test_train_and_test_are_two_roles_in_one_command(tmp_path: Path, run: Run, make: Any) -> None:
    make(tmp_path / "bare", ROLES)
    good(run("build", "bare", "--workers", 1))
    assert counts("bare-lake") == {"bare/test": 10, "bare/train": 20}
    assert "nothing to do" in good(run("build", "bare", "--workers", 1)).output
    make(tmp_path / "set.data", {**ROLES, "README": b"x"})
    good(run("build", "set.data", "--into", "lake", "--workers", 1))
    assert counts("lake") == {"set.data/test": 10, "set.data/train": 20}
    assert roles("lake") == {"train": 20, "test": 10}
    rejects = Lake("lake").scan("rejects").select("split", "path").collect().rows()
    assert rejects == [("other", "README")]
    labels = Lake("lake").scan("images").select("label").unique().sort("label").collect().to_series().to_list()
    assert labels == ["A", "B"]
    assert "nothing to do" in good(run("build", "lake", "--workers", 1)).output


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (as_folder, "set"),
        pytest.param(as_tar, "set.tar.gz", marks=pytest.mark.slow),
        pytest.param(as_zip, "set.zip", marks=pytest.mark.slow),
    ],
)
def test_the_recipe_of_init_makes_the_same_tables(tmp_path: Path, run: Run, make: Any, name: str) -> None:
    make(tmp_path / name, {**ROLES, "extra/C/1.png": IMAGES[30]})
    good(run("init", name))
    good(run("build", "recipe.toml", "--workers", 1))
    good(run("build", name, "--into", "other", "--workers", 1))
    one, two = Lake("set-lake"), Lake("other")
    for table in ("images", "rejects", "index", "clusters", "splits", "shards"):
        assert one.scan(table).collect().equals(two.scan(table).collect()), table
    with pytest.raises(RecipeError, match=r"recipe.toml exists already and was not changed"):
        run("init", name)


def test_a_lake_inside_its_source_is_left_out_and_grows_with_it(tmp_path: Path, run: Run) -> None:
    as_folder(tmp_path, CLASSES)
    good(run("build", ".", "--workers", 1))
    (lake,) = tmp_path.glob("*-lake")
    assert sum(counts(lake).values()) == 20
    as_folder(tmp_path, {"A/new.png": IMAGES[35]})
    good(run("build", ".", "--workers", 1))
    assert sum(counts(lake).values()) == 21
    assert Lake(lake).scan("rejects").collect().is_empty()


def test_sources_are_added_to_a_lake_and_one_of_the_same_name_takes_its_place(tmp_path: Path, run: Run) -> None:
    as_folder(tmp_path / "a" / "cats", dict(list(CLASSES.items())[:8]))
    as_folder(tmp_path / "dogs" / "test", dict(list(CLASSES.items())[8:]))
    good(run("build", "a/cats", "--into", "lake", "--workers", 1))
    assert sum(roles("lake").values()) == 8
    good(run("build", "dogs/test", "--into", "lake", "--workers", 1))
    assert counts("lake") == {"cats/train": 8, "dogs/test": 12}
    # The split was the default one, and follows the sources.
    assert roles("lake") == {"train": 8, "test": 12}
    assert "nothing to do" in good(run("build", "dogs/test", "--into", "lake", "--workers", 1)).output
    as_folder(tmp_path / "b" / "cats", dict(list(CLASSES.items())[:4]))
    result = good(run("build", "b/cats", "--into", "lake", "--workers", 1))
    assert f"cats: {tmp_path}/a/cats is replaced" in result.output
    assert counts("lake") == {"cats/train": 4, "dogs/test": 12}


def test_a_path_that_the_lake_has_is_left_as_its_recipe_has_it(tmp_path: Path, run: Run) -> None:
    for number, folder in enumerate(("a", "b")):
        as_folder(tmp_path / folder / "digits", {"A/1.png": IMAGES[number], "B/1.png": IMAGES[number + 2]})
    good(run("build", "a/digits", "b/digits", "--workers", 1))
    for again in ("a/digits", "b/digits"):
        assert "nothing to do" in good(run("build", again, "--into", "digits-lake", "--workers", 1)).output
    assert counts("digits-lake") == {"b-digits/train": 2, "digits/train": 2}
    keys = 'uri = "./a/digits"\nsplit = "train"\nclasses = 2\n'
    (tmp_path / "mine.toml").write_text(
        f'[[source]]\n{keys}\n[[split]]\nname = "own"\nseed = 7\ntrain = {{ from = "train" }}\n'
    )
    good(run("build", "mine.toml", "--workers", 1))
    good(run("build", "a/digits", "--into", "mine-lake", "--workers", 1))
    as_folder(tmp_path / "more", {"A/1.png": IMAGES[9]})
    good(run("build", "more", "--into", "mine-lake", "--workers", 1))
    kept = read_recipe(tmp_path / "mine-lake" / "recipe.toml")
    assert [(part.dataset, part.split, part.classes) for part in kept.source] == [
        ("digits", "train", 2),
        ("more", None, None),
    ]
    assert [(part.name, part.seed) for part in kept.split] == [("own", 7)]
    assert counts("mine-lake") == {"digits/train": 2, "more/train": 1}


def test_a_path_may_name_its_split_and_a_share_of_train_becomes_valid(tmp_path: Path, run: Run) -> None:
    as_tar(tmp_path / "large.tar.gz", CLASSES)
    as_tar(tmp_path / "small.tar.gz", {f"A/{i}.png": IMAGES[i] for i in range(15, 30)})
    words = ("build", "train=large.tar.gz", "test=small.tar.gz", "--valid", 0.25, "--into", "lake", "--workers", 1)
    good(run(*words))
    assert counts("lake") == {"large/train": 20, "small/test": 15}
    drawn = roles("lake")
    assert drawn["test"] == 15
    assert drawn["train"] + drawn["valid"] == 20
    assert 0 < drawn["valid"] < 10
    # Five pictures are in both archives; test keeps its own.
    dropped = Lake("lake").scan("splits").filter(~pl.col("kept")).collect()
    assert len(dropped) == 5
    assert "test" not in dropped["role"]
    assert "nothing to do" in good(run(*words)).output
    good(run("init", *words[1:5]))
    made = read_recipe(tmp_path / "recipe.toml")
    kept = read_recipe(tmp_path / "lake" / "recipe.toml")
    assert (made.root, made.source, made.split) == (str(tmp_path / "large-lake"), kept.source, kept.split)


def test_a_named_split_that_the_lake_does_not_have_is_an_error(tmp_path: Path, run: Run) -> None:
    as_tar(tmp_path / "a.tar", CLASSES)
    as_tar(tmp_path / "b.tar", {"A/x.png": IMAGES[30]})
    good(run("build", "train=a.tar", "--workers", 1))
    with pytest.raises(RecipeError, match=r"^a.tar is in .*a-lake already, and not as split test"):
        run("build", "test=a.tar", "--into", "a-lake")
    with pytest.raises(RecipeError, match=r"--valid 0.1 is for a new lake, and a-lake has other splits"):
        run("build", "train=a.tar", "test=b.tar", "--valid", 0.1, "--into", "a-lake")
    with pytest.raises(RecipeError, match=r"--valid 0.1: .* the sources have train\. Leave it out, or name"):
        run("build", "train=a.tar", "--valid", 0.1, "--into", "other")
    for unknown in ("fold=a.tar", "train=", "Train=a.tar"):
        with pytest.raises(SourceError, match=unknown):
            run("build", unknown)
    (tmp_path / "r.toml").write_text('[[source]]\nuri = "a.tar"\n')
    assert "--valid is for sources" in run("build", "r.toml", "--valid", 0.1).output
    for whole in ("train=r.toml", "train=a-lake"):
        assert "has splits of its own" in run("build", whole, "test=b.tar").output
    for share in (0, 1, "nan", "x"):
        assert run("build", "train=a.tar", "test=b.tar", "--valid", share).exit_code == 2, share
    assert not (tmp_path / "other").exists()


def test_a_file_named_like_an_argument_with_a_split_is_a_path(tmp_path: Path, run: Run) -> None:
    as_tar(tmp_path / "test=a.tar", CLASSES)
    good(run("build", "test=a.tar", "--into", "lake", "--workers", 1))
    assert list(counts("lake")) == ["test-a/test"]
    as_tar(tmp_path / "b.tar", CLASSES)
    good(run("build", "test=*b.tar", "--into", "second", "--workers", 1))
    assert list(counts("second")) == ["b/test"]


def test_a_source_is_replaced_only_by_one_with_all_its_splits(tmp_path: Path, run: Run) -> None:
    as_folder(tmp_path / "a" / "pets", ROLES)
    as_folder(tmp_path / "b" / "pets", {"A/1.png": IMAGES[35]})
    as_folder(tmp_path / "c" / "pets" / "valid", {"A/1.png": IMAGES[36]})
    good(run("build", "a/pets", "--into", "lake", "--workers", 1))
    with pytest.raises(RecipeError, match="has the splits train of dataset 'pets', but .*has test, train"):
        run("build", "b/pets", "--into", "lake", "--workers", 1)
    good(run("build", "c/pets", "--into", "lake", "--workers", 1))
    assert counts("lake") == {"pets/test": 10, "pets/train": 20, "pets/valid": 1}


def test_an_edited_recipe_of_a_lake_is_used_and_kept_when_sources_are_added(tmp_path: Path, run: Run) -> None:
    as_folder(tmp_path / "one", CLASSES)
    as_folder(tmp_path / "two", {"A/9.png": IMAGES[35]})
    good(run("build", "one", "--into", "lake", "--workers", 1))
    file = tmp_path / "lake" / "recipe.toml"
    edited = file.read_text().replace('rules = ["exact"]', 'rules = ["exact", "sign"]') + "# my own words\n"
    file.write_text(edited)
    assert "sign: new" in good(run("build", "lake", "--workers", 1)).output
    good(run("build", "two", "--into", "lake", "--workers", 1))
    assert counts("lake") == {"one/train": 20, "two/train": 1}
    assert read_recipe(file).dedup.rules == ("exact", "sign")
    assert (tmp_path / "lake" / "recipe.1.toml").read_text() == edited


def test_several_paths_of_one_name_are_told_apart(tmp_path: Path, run: Run) -> None:
    as_folder(tmp_path / "a" / "pets", {"cat/1.png": IMAGES[0]})
    as_folder(tmp_path / "b" / "pets", {"cat/1.png": IMAGES[1]})
    good(run("build", "a/pets", "b/pets", "--into", "lake", "--workers", 1))
    assert counts("lake") == {"b-pets/train": 1, "pets/train": 1}


def test_what_a_path_is_decides(tmp_path: Path, run: Run) -> None:
    as_folder(tmp_path / "set", CLASSES)
    good(run("build", "set", "--workers", 1))
    (tmp_path / "r.toml").write_text('[[source]]\nuri = "set"\n')
    # A recipe's lake is named for it.
    good(run("build", "r.toml", "--workers", 1))
    assert counts("r-lake") == {"set/train": 20}
    for words, hint in (
        (("r.toml", "set"), "build it alone"),
        (("set-lake", "set"), "--into set-lake"),
        (("set-lake", "--into", "x"), "--into is for sources"),
        (("r.toml", "--into", "x"), "--into is for sources"),
        ((), "Missing argument"),
    ):
        result = run("build", *words)
        assert result.exit_code == 2
        assert hint in result.output


def test_a_damaged_lake_is_an_error_and_never_a_source(tmp_path: Path, run: Run) -> None:
    as_folder(tmp_path / "broken" / "images" / "_delta_log", {"x.json": b"{}", "1.png": IMAGES[0]})
    with pytest.raises(LakeError, match="broken"):
        run("build", "broken", "--workers", 1)
    with pytest.raises(LakeError, match="is a table of the lake"):
        run("build", "broken/images", "--workers", 1)
    assert not list(tmp_path.glob("*-lake"))


def test_a_lake_is_not_put_among_other_files(tmp_path: Path, run: Run) -> None:
    as_folder(tmp_path / "set", CLASSES)
    as_folder(tmp_path / "mine", {"thesis.txt": b"x"})
    with pytest.raises(LakeError, match="contains files, but is not a lake"):
        run("build", "set", "--into", "mine", "--workers", 1)
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_idx_files_named_one_by_one_are_images_with_their_labels(tmp_path: Path, run: Run) -> None:
    for role, number in (("train", 6), ("t10k", 4)):
        head = bytes([0, 0, 8, 3]) + b"".join(side.to_bytes(4, "big") for side in (number, 8, 8))
        (tmp_path / f"{role}-images-idx3-ubyte").write_bytes(head + pictures(number, 3, (8, 8)).tobytes())
        labels = bytes([0, 0, 8, 1]) + number.to_bytes(4, "big") + bytes(range(number))
        (tmp_path / f"{role}-labels-idx1-ubyte").write_bytes(labels)
    good(run("build", *sorted(map(str, tmp_path.glob("*ubyte"))), "--into", "lake", "--workers", 1))
    assert sorted(counts("lake").values()) == [4, 6]
    assert Lake("lake").scan("images").filter(pl.col("label").is_null()).collect().is_empty()
    good(run("build", ".", "--into", "again", "--workers", 1))
    assert {key.rpartition("/")[2]: value for key, value in counts("again").items()} == {"test": 4, "train": 6}


def test_two_images_are_enough(tmp_path: Path, run: Run) -> None:
    as_folder(tmp_path / "one", {"1.png": IMAGES[0]})
    as_folder(tmp_path / "two", {"A/1.png": IMAGES[0], "A/2.png": IMAGES[0]})
    good(run("build", "one", "--workers", 1))
    good(run("build", "two", "--workers", 1))
    assert (sum(counts("one-lake").values()), sum(counts("two-lake").values())) == (1, 2)


def test_arrays_and_tables_are_built_by_name(tmp_path: Path, run: Run) -> None:
    labels = np.arange(6) % 2
    np.savez(tmp_path / "mnist.npz", x_train=pictures(6), y_train=labels, x_test=pictures(2, 5), y_test=labels[:2])
    good(run("build", "mnist.npz", "--workers", 1))
    assert counts("mnist-lake") == {"mnist/test": 2, "mnist/train": 6}
    assert roles("mnist-lake") == {"test": 2, "train": 6}


def test_nothing_at_all_prints_help(run: Run) -> None:
    result = good(run())
    assert "Usage" in result.output
    assert "imagelake build FOLDER" in result.output
