"""Every recipe of data/ is read, and built end to end on the data that is here."""

import gzip
import hashlib
import importlib.util
import json
import tomllib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import polars as pl
import pytest
from making import DATA, needs_data
from numpy.typing import NDArray

from pipeline.builder.build import build
from pipeline.dedup.clusters import overlap_matrix
from pipeline.lake_handle import Lake
from pipeline.recipe import read_recipe

RECIPES = Path(__file__).parents[1] / "data"
NAMES = sorted(str(file.relative_to(RECIPES).with_suffix("")) for file in RECIPES.rglob("*.toml"))
NOTEBOOKS = (
    "digit_recognizer",
    "mnist_five_or_not",
    "notmnist_maxpool_within",
    "notmnist_md5_softmax",
    "notmnist_sign",
)
ARCHIVES = ("notMNIST_large_sample.tar.gz", "notMNIST_small.tar.gz")


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_reads_and_builds_a_lake_of_its_own_name(name: str) -> None:
    recipe = read_recipe(RECIPES / f"{name}.toml")
    assert recipe.root == str(recipe.base / Path(name).name)
    assert recipe.split
    assert recipe.baseline


def test_the_readme_lists_every_recipe() -> None:
    text = (RECIPES / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}.toml`" not in text] == []


def test_every_recipe_of_a_notebook_has_a_quick_variant() -> None:
    assert [name for name in NAMES if name.startswith("quick/")] == [f"quick/{name}" for name in NOTEBOOKS]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_quick_variant_differs_only_in_its_fits(name: str) -> None:
    """Where the sources are counts as equal; and settings that do not save time are the notebook's."""
    full, fast = read_recipe(RECIPES / f"{name}.toml"), read_recipe(RECIPES / "quick" / f"{name}.toml")
    assert (fast.decode, fast.dedup, fast.split) == (full.decode, full.dedup, full.split)
    for one, other in zip(full.source, fast.source, strict=True):
        assert other.uri == f"../{one.uri}"
        assert other.model_copy(update={"uri": one.uri}) == one
    shorter = {"train_sizes", "epochs", "batch_size", "candidates", "search_size"}
    for part, quicker in zip(full.baseline, fast.baseline, strict=True):
        same, quick_same = (one.model_dump(exclude=shorter) for one in (part, quicker))
        assert same == quick_same
        assert part != quicker


def test_recipes_have_the_settings_of_their_notebooks() -> None:
    found: dict[tuple[str, str], dict[str, Any]] = {
        (name, part.model): part.run_settings
        for name in NOTEBOOKS
        for part in read_recipe(RECIPES / f"{name}.toml").baseline
    }
    expected: dict[tuple[str, str], dict[str, Any]] = {
        ("notmnist_md5_softmax", "softmax-sgd"): {"epochs": 20, "batch_size": 128, "learning_rate": 0.01},
        ("notmnist_maxpool_within", "logistic"): {"replacement": True, "train_sizes": [50, 100, 1000, 5000, "all"]},
        ("mnist_five_or_not", "sgd-binary"): {"max_iter": 5, "alpha": 0.0001, "folds": 3, "seed": 42},
        ("digit_recognizer", "svm-linear"): {
            "candidates": 10,
            "c_values": [2.0**power for power in range(-7, 7)],
            "search_size": "all",
            "break_ties": False,
        },
        ("digit_recognizer", "dense"): {"hidden": 400, "epochs": 100, "batch_size": 32, "learning_rate": 0.001},
        ("digit_recognizer", "lenet"): {"padding": 0, "epochs": 50, "batch_size": 32, "learning_rate": 0.001},
    }
    for key, settings in expected.items():
        assert {name: found[key][name] for name in settings} == settings
    splits = {name: read_recipe(RECIPES / f"{name}.toml").split[0] for name in NOTEBOOKS}
    assert splits["notmnist_md5_softmax"].keep == ("valid", "test", "train")
    held_out = splits["digit_recognizer"].test
    assert held_out is not None
    assert (held_out.share, splits["digit_recognizer"].groups) == (0.1, ())


@needs_data
def test_the_sample_recipe_finds_what_was_counted_independently(tmp_path: Path) -> None:
    values = load("notmnist_sample")
    for source in values["source"]:
        source["uri"] = str((RECIPES / source["uri"]).resolve())
    lake = built(quick(values), tmp_path)
    assert counts(lake) == {"train": 3_493, "test": 18_724}
    assert seen_in_train(lake) == {"exact": 297, "sign": 533, "maxpool:2": 347, "maxpool:4": 515}
    assert lake.scan("rejects").select("reason").collect().to_series().to_list() == ["empty", "empty"]
    assert len(lake.members("main", "test")) == 18_724 - 533
    assert trained(lake) == [("logistic", 100)]


@needs_data
def test_the_sign_recipe_builds_from_a_server_by_digest(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGELAKE_CACHE", str(tmp_path / "cache"))
    values = load("notmnist_sign")
    for source, archive in zip(values["source"], ARCHIVES, strict=True):
        source["uri"] = f"{server}/{archive}"
        source["digest"] = f"sha256:{hashlib.sha256((DATA / archive).read_bytes()).hexdigest()}"
    values["source"][0]["min_per_class"] = 300
    values["split"][0]["train"]["size"] = 3_000
    values["split"][0]["valid"]["size"] = 300
    lake = built(quick(values), tmp_path)
    assert counts(lake) == {"train": 3_493, "test": 18_724}
    roles = {role: len(lake.members("main", role, sanitized=False)) for role in ("train", "valid", "test")}
    assert roles == {"train": 3_000, "valid": 300, "test": 10_000}
    assert sorted(file.name for file in (tmp_path / "cache").rglob("*.tar.gz")) == sorted(ARCHIVES)


@needs_data
@pytest.mark.parametrize(
    ("name", "model", "block", "once"),
    [("notmnist_md5_softmax", "softmax-sgd", 1, False), ("notmnist_maxpool_within", "logistic", 4, True)],
)
def test_the_other_notmnist_recipes_build_on_the_letters_that_are_here(
    tmp_path: Path, *, name: str, model: str, block: int, once: bool
) -> None:
    values = load(name)
    for source, archive in zip(values["source"], ARCHIVES, strict=True):
        source["uri"] = str(DATA / archive)
    values["source"][0]["min_per_class"] = 300
    values["split"][0]["train"]["size"] = 3_000
    values["split"][0]["valid"]["size"] = 300
    lake = built(quick(values), tmp_path)
    assert trained(lake) == [(model, 100)]
    # Train comes first in one recipe, and last in the other, which is therefore cleaned.
    cleaned = "train" if name == "notmnist_md5_softmax" else "test"
    assert len(lake.members("main", cleaned)) == kept_by_hand(lake, block, cleaned, once=once)
    assert measured_roles(lake) == ["test", "train", "valid"]


@needs_data
def test_the_five_or_not_recipe_cross_validates_two_models(tmp_path: Path) -> None:
    values = load("mnist_five_or_not")
    first_digits(tmp_path / "mnist", {"train": 6_000, "t10k": 1_000})
    values["source"][0] |= {"uri": str(tmp_path / "mnist"), "min_per_class": 85}
    lake = built(quick(values, size=3_000), tmp_path)
    crossed = lake.scan("scores").filter(eval_on="cross-validated", metric="accuracy").collect()
    accuracy = dict(crossed.select("model", "value").rows())
    # No test of luck: whoever says no to everything is right as often as an image is no 5.
    train, labels = lake.arrays("main", "train")
    fives = int((labels[:3_000] == 5).sum())
    assert accuracy["never"] == pytest.approx(1 - fives / 3_000, abs=1e-12)
    assert accuracy["sgd-binary"] > accuracy["never"]
    assert len(train) == 6_000


@needs_data
def test_the_mnist_recipe_finds_no_equal_digits_and_nine_under_sign(tmp_path: Path) -> None:
    values = load("mnist")
    values["source"][0]["uri"] = str(DATA / "mnist")
    lake = built(quick(values), tmp_path)
    assert counts(lake) == {"train": 60_000, "test": 10_000}
    assert seen_in_train(lake) == {"sign": 9, "maxpool:4": 31}
    roles = {role: len(lake.members("main", role, sanitized=False)) for role in ("train", "valid", "test")}
    assert roles == {"train": 55_000, "valid": 5_000, "test": 10_000}


@needs_data
def test_the_digit_recognizer_recipe_holds_out_a_tenth_and_keeps_every_row_to_predict(tmp_path: Path) -> None:
    images, labels = digits(2_500)
    write_csv(tmp_path / "digit_recognizer_csv" / "train.csv", images[:2_000], labels[:2_000])
    write_csv(tmp_path / "digit_recognizer_csv" / "test.csv", images[2_000:])
    values = load("digit_recognizer")
    lake = built(quick(values), tmp_path)
    assert counts(lake) == {"train": 2_000, "test": 500}
    train, _ = lake.arrays("main", "train", sanitized=False)
    held, held_labels = lake.arrays("main", "test", sanitized=False)
    # A tenth at random, give or take five standard deviations of 13.4, and not the same of every class.
    assert len(train) + len(held) == 2_000
    assert abs(len(held) - 200) < 5 * 13.4
    assert len(set(np.bincount(held_labels).tolist())) > 1
    rows = lake.members("submission", "test").join(
        lake.scan("images").select("image_id", "path").collect(), on="image_id", maintain_order="left"
    )
    pictures, unlabelled = lake.arrays("submission", "test")
    assert np.array_equal(pictures, images[2_000:][rows["path"].cast(pl.Int64).to_numpy()])
    assert set(unlabelled.tolist()) == {-1}


@pytest.fixture
def server() -> Iterator[str]:
    handler = partial(Quiet, directory=str(DATA))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def quick(values: dict[str, Any], size: int = 100) -> dict[str, Any]:
    """Train as little as will do, and what needs torch only where it is."""
    known = importlib.util.find_spec("torch") is not None
    parts = [part for part in values["baseline"] if known or part["model"] not in ("dense", "lenet")]
    few = {
        "softmax-sgd": {"epochs": 2},
        "dense": {"epochs": 2},
        "lenet": {"epochs": 2},
        "svm-linear": {"candidates": 2},
        "sgd-binary": {"max_iter": 20},
    }
    return {
        **values,
        "baseline": [{**part, "train_sizes": [size], **few.get(part["model"], {})} for part in parts],
    }


def kept_by_hand(lake: Lake, block: int, cleaned: str, *, once: bool) -> int:
    """Count images of a role whose block maxima occur in no other role, all of them or each kind once."""
    pictures = {role: lake.arrays("main", role, sanitized=False)[0] for role in ("train", "valid", "test")}
    side = 28 // block
    seen = {
        role: [row.tobytes() for row in images.reshape(-1, side, block, side, block).max(axis=(2, 4))]
        for role, images in pictures.items()
    }
    known = {key for role, keys in seen.items() if role != cleaned for key in keys}
    left = [key for key in seen[cleaned] if key not in known]
    return len(set(left)) if once else len(left)


def trained(lake: Lake) -> list[tuple[str, int]]:
    return sorted(lake.scan("scores").select("model", "train_size").unique().collect().rows())


def measured_roles(lake: Lake) -> list[str]:
    return lake.scan("scores").select("role").unique().sort("role").collect().to_series().to_list()


def load(name: str) -> dict[str, Any]:
    return tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))


def built(values: dict[str, Any], folder: Path) -> Lake:
    """Write a recipe as TOML, build it, and open its lake."""
    file = folder / "recipe.toml"
    file.write_text("".join(f"{key} = {toml(value)}\n" for key, value in values.items()), encoding="utf-8")
    return Lake(build(read_recipe(file)).root)


def toml(value: Any) -> str:
    """Spell a value of a recipe: strings, numbers and lists are as in JSON, tables are not."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml(item)}' for key, item in value.items())} }}"
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, list) else json.dumps(value)


def counts(lake: Lake) -> dict[str, int]:
    return dict(lake.scan("images").group_by("split").len().collect().rows())


def seen_in_train(lake: Lake) -> dict[str, int]:
    members = lake.scan("images").select("image_id", role="split")
    return dict(
        overlap_matrix(lake.scan("clusters"), members)
        .filter(role="test", other="train")
        .select("rule", "images")
        .rows()
    )


def digits(count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the first digits of MNIST's train files: (n, 28, 28) and (n,)."""
    images = gzip.decompress((DATA / "mnist" / "train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((DATA / "mnist" / "train-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, count * 784, offset=16).reshape(count, 28, 28)
    return pixels, np.frombuffer(labels, np.uint8, count, offset=8)


def first_digits(folder: Path, counts: dict[str, int]) -> None:
    """Write the first digits of MNIST's files, by part, as IDX files."""
    folder.mkdir()
    for part, count in counts.items():
        for name, head, size in (("images-idx3", 16, 784), ("labels-idx1", 8, 1)):
            data = gzip.decompress((DATA / "mnist" / f"{part}-{name}-ubyte.gz").read_bytes())
            values = data[:4] + count.to_bytes(4, "big") + data[8 : head + count * size]
            (folder / f"{part}-{name}-ubyte").write_bytes(values)


def write_csv(file: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8] | None = None) -> None:
    """Write pictures as the competition does: a header, then a row each, the label in front."""
    file.parent.mkdir(exist_ok=True)
    names = [f"pixel{number}" for number in range(images[0].size)]
    frame = pl.DataFrame(images.reshape(len(images), -1), schema=names)
    labelled = frame if labels is None else frame.insert_column(0, pl.Series("label", labels))
    labelled.write_csv(file)
