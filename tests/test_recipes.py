"""Every recipe of data/ is read, and built end to end on the data that is here."""

import hashlib
import importlib.util
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from making import DATA, needs_data
from recipe_files import ARCHIVES, RECIPES, built, load, load_for_letters

from pipeline.dedup.clusters import overlap_matrix
from pipeline.lake_handle import Lake
from pipeline.recipe import read_recipe

NAMES = sorted(str(file.relative_to(RECIPES).with_suffix("")) for file in RECIPES.rglob("*.toml"))
NOTEBOOKS = (
    "digit_recognizer",
    "mnist_five_or_not",
    "notmnist_maxpool_within",
    "notmnist_md5_softmax",
    "notmnist_sign",
)


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


@pytest.mark.slow
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


@pytest.mark.slow
@needs_data
def test_the_sign_recipe_builds_from_a_server_by_digest(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGELAKE_CACHE", str(tmp_path / "cache"))
    values = load_for_letters("notmnist_sign", train=3_000, valid=300)
    for source, archive in zip(values["source"], ARCHIVES, strict=True):
        source["uri"] = f"{server}/{archive}"
        source["digest"] = f"sha256:{hashlib.sha256((DATA / archive).read_bytes()).hexdigest()}"
    lake = built(quick(values), tmp_path)
    assert counts(lake) == {"train": 3_493, "test": 18_724}
    roles = {role: len(lake.members("main", role, sanitized=False)) for role in ("train", "valid", "test")}
    assert roles == {"train": 3_000, "valid": 300, "test": 10_000}
    assert sorted(file.name for file in (tmp_path / "cache").rglob("*.tar.gz")) == sorted(ARCHIVES)


@pytest.mark.slow
@needs_data
def test_the_mnist_recipe_finds_no_equal_digits_and_nine_under_sign(tmp_path: Path) -> None:
    values = load("mnist")
    values["source"][0]["uri"] = str(DATA / "mnist")
    lake = built(quick(values), tmp_path)
    assert counts(lake) == {"train": 60_000, "test": 10_000}
    assert seen_in_train(lake) == {"sign": 9, "maxpool:4": 31}
    roles = {role: len(lake.members("main", role, sanitized=False)) for role in ("train", "valid", "test")}
    assert roles == {"train": 55_000, "valid": 5_000, "test": 10_000}


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


def trained(lake: Lake) -> list[tuple[str, int]]:
    return sorted(lake.scan("scores").select("model", "train_size").unique().collect().rows())


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
