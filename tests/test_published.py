"""The published figures of the classic notebooks: they agree with the recipes, and are compared as documented."""

import gzip
import json
import math
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from making import as_folder, as_tar, files_of
from making import recipe as make_recipe

from pipeline.baselines.models import MODELS
from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import BaselineError
from pipeline.lake_handle import Lake
from pipeline.recipe import read_recipe

PROJECT = Path(__file__).parents[1]
# Settings of a notebook that are no keys of a recipe.
WORDS = {"Adam", "leaky ReLU", "10,000 rows scored", "at the positions of valid's unique rows"}


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    return import_module("published")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with the runs of two recipes: logistic with three roles, and two models of one class against the rest."""
    base = tmp_path_factory.mktemp("claims")
    as_folder(base / "train", files_of(240))
    # Valid loses the copies of train, so that its kept rows are not its first ones.
    copies = {f"A/copy{i}.png": data for i, data in enumerate(list(files_of(240).values())[:30:2])}
    as_folder(base / "valid", {**files_of(30, seed=1), **copies})
    as_folder(base / "test", files_of(40, seed=2))
    logistic = {"model": "logistic", "split": "main", "train_sizes": [50, 100, "all"], "replacement": True}
    binary = {"split": "main", "positive": "A", "folds": 3}
    made = make_recipe(
        base,
        *({"uri": split, "split": split} for split in ("train", "valid", "test")),
        decode={"size": [8, 8]},
        split=[{"name": "main", "sanitize": "exact", **{role: {"from": role} for role in ("train", "valid", "test")}}],
        baseline=[
            logistic,
            {"model": "sgd-binary", **binary, "max_iter": 5, "seed": 42},
            {"model": "never", **binary},
        ],
    )
    return Lake(build(made, engine=LocalEngine(1)).root)


def test_claims_name_baselines_roles_and_settings_of_their_recipes(published: Any) -> None:
    for name, claims in published.CLAIMS.items():
        recipe = read_recipe(PROJECT / "data" / f"{name}.toml")
        parts = {part.model: part for part in recipe.baseline}
        splits = {split.name: split for split in recipe.split}
        for claim in claims:
            assert claim.model in MODELS
            part = parts[claim.model]
            assert (part.split, claim.role in splits[claim.split].roles) == (claim.split, True)
            assert set(claim.settings) <= set(type(part).model_fields)
            assert set(claim.assumed) <= set(claim.settings) | WORDS
            assert claim.why.endswith(".")
            stored = {key: part.model_dump(mode="json").get(key, part.later.get(key)) for key in claim.settings}
            # A recipe of a notebook has its settings; mnist.toml is imagelake's own.
            assert name == "mnist" or stored == json.loads(json.dumps(claim.settings))
            sizes = {figure.our_rows for figure in claim.figures}
            assert name == "mnist" or sizes <= set(part.train_sizes)


def test_every_notebook_has_claims_and_data(published: Any) -> None:
    quick = {file.stem for file in (PROJECT / "data" / "quick").glob("*.toml")}
    assert quick <= set(published.CLAIMS)
    assert set(published.DIGITS) < set(published.CLAIMS)


def test_each_metric_of_a_claim_is_in_the_documentation_of_scores(published: Any) -> None:
    text = (PROJECT / "docs" / "reference" / "scores.md").read_text(encoding="utf-8")
    metrics = {claim.metric for claims in published.CLAIMS.values() for claim in claims}
    assert [metric for metric in metrics if f"`{metric}`" not in text] == []


def test_a_standard_error_has_images_and_spread(published: Any) -> None:
    assert published.standard_error(0.9, 10_000) == pytest.approx(0.003)
    assert published.standard_error(0.9, 10_000, 0.004) == pytest.approx(0.005)
    assert published.standard_error(None, 100) is None
    assert published.standard_error(0.9, None) is None


def test_figures_are_put_beside_those_of_a_lake(published: Any, lake: Lake) -> None:
    data = published.Data("toys", published.mnist, "They are toys.")
    row, valid = published.compare("notmnist_maxpool_within", lake, data, 1.5)
    fifty, hundred, *between, largest = row["figures"]
    assert [one["our_rows"] for one in (fifty, hundred, largest)] == [50, 100, 240]
    assert [one["ours"] for one in between] == [None, None]
    error = math.hypot(fifty["published_error"], fifty["our_error"])
    assert fifty["z_score"] == pytest.approx((fifty["ours"] - 0.567) / error)
    assert row["settings"]["ours"] == {"c": 1.0, "max_iter": 100, "replacement": True}
    assert row["why"].startswith("The notebook draws")
    assert row["why"].endswith("They are toys.")
    # What the notebook measured: positions of valid's kept rows, images of train.
    kept = lake.members("main", "valid", sanitized=False)["kept"].to_numpy()
    assert not kept.all()
    pixels, labels = lake.arrays("main", "train")
    predicted = lake.predict(pixels[: len(kept)][kept], run="logistic@main", train_size=50)["predicted"]
    right = np.array(["AB"[label] for label in labels[: len(kept)][kept]]) == predicted.to_numpy()
    assert (fifty["ours"], fifty["our_images"]) == (right.mean(), kept.sum())
    stored = lake.scan("scores").filter(
        pl.col("rule").is_null(), model="logistic", role="valid", eval_on="sanitized", metric="accuracy", train_size=50
    )
    assert valid["figures"][0]["ours"] == stored.collect()["value"].item()


def test_folds_are_compared_one_by_one_and_by_their_mean(published: Any, lake: Lake) -> None:
    data = published.Data("toys", published.mnist)
    folds, precision, *_, never = published.compare("mnist_five_or_not", lake, data)
    assert [one["at"] for one in folds["figures"]] == ["fold 1", "fold 2", "fold 3", "mean"]
    values = [one["ours"] for one in folds["figures"][:3]]
    mean = folds["figures"][3]
    assert mean["ours"] == pytest.approx(np.mean(values))
    assert mean["our_error"] == pytest.approx(np.std(values, ddof=1) / math.sqrt(3))
    assert mean["published"] == pytest.approx((0.9645 + 0.9656 + 0.9465) / 3)
    assert folds["figures"][0]["our_images"] == 80
    # The class of this lake is A, and not 5.
    assert precision["figures"][0]["ours"] is None
    assert never["figures"][0]["ours"] == pytest.approx(0.5)


def test_of_several_train_sizes_the_folds_of_the_largest_are_compared(published: Any) -> None:
    claim = published.CLAIMS["mnist_five_or_not"][0]
    ours = [published.Ours(value, rows, 10) for rows, value in ((50, 0.1), (50, 0.2), (90, 0.7), (90, 0.8), (90, 0.9))]
    assert [published.matching(figure, ours).value for figure in claim.figures] == [0.7, 0.8, 0.9]
    assert published.mean_of_folds(claim, ours)["ours"] == pytest.approx(0.8)
    assert published.mean_of_folds(claim, ours)["our_rows"] == 90


def test_a_lake_with_two_such_models_is_refused(published: Any) -> None:
    scores = pl.LazyFrame({"model": ["never"] * 2, "split_name": ["main"] * 2, "run_id": ["a", "b"], "settings": "{}"})
    lake = SimpleNamespace(root="two", scan=lambda _: scores)
    claim = published.CLAIMS["mnist_five_or_not"][-1]
    with pytest.raises(BaselineError, match="two has 2 models never@main. Build the recipe into a lake of its own."):
        published.run_of(lake, claim)


def test_other_settings_and_missing_runs_are_reasons(published: Any, lake: Lake) -> None:
    data = published.Data("toys", published.mnist)
    claim = published.CLAIMS["mnist_five_or_not"][0]
    other = claim._replace(settings={**claim.settings, "max_iter": 1000})
    published.CLAIMS["toys"] = (other, claim._replace(model="lenet"))
    changed, missing = published.compare("toys", lake, data)
    del published.CLAIMS["toys"]
    assert changed["why"].startswith("Ours has another max_iter. The notebook")
    assert missing["why"].startswith("The lake has no such run. ")
    assert {line["ours"] for line in missing["figures"]} == {None}


@pytest.mark.parametrize("name", ["notmnist_maxpool_within", "mnist_five_or_not", "digit_recognizer"])
def test_a_table_has_both_figures_settings_and_the_reason(
    published: Any, lake: Lake, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    data = published.Data("toys", published.mnist)
    published.show(name, data, published.compare(name, lake, data), as_json=False)
    text = capsys.readouterr().out
    assert text.startswith(f"{name} on toys\n")
    for claim in published.CLAIMS[name]:
        assert f"{claim.model}: {claim.what}" in text
        assert claim.why in " ".join(text.split())
        for figure in claim.figures:
            assert figure.value is None or f"{figure.value:.4f}" in text
    published.show(name, data, published.compare(name, lake, data), as_json=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["what"] for row in rows] == [claim.what for claim in published.CLAIMS[name]]


@pytest.mark.parametrize(
    "case",
    [
        (["--lake", "x"], "--lake needs --only NAME"),
        (["--lake", "x", "--only", "notmnist_sign", "--quick"], "and no --quick"),
        (["--only", "mnist", "--quick"], "the recipe mnist has no quick variant"),
        (["--only", "notmnist_sign", "--only", "mnist", "--quick"], "the recipe mnist has no quick variant"),
        (["--only", "mnist_five_or_not", "--glyphs"], "the recipe mnist_five_or_not has no letters"),
        (["--archives", "nowhere"], "has no notMNIST_large.tar.gz and no notMNIST_small.tar.gz"),
        (["--lake", "x", "--archives", "."], "not allowed with"),
        (["--only", "other"], "invalid choice"),
    ],
)
def test_wrong_arguments_are_an_error(
    published: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: tuple[list[str], str]
) -> None:
    arguments, said = case
    monkeypatch.setattr("sys.argv", ["published.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        published.main()
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_the_main_program_reads_a_lake(
    published: Any, lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["--only", "notmnist_sign", "--lake", str(lake.root), "--work", str(tmp_path / "work")]
    monkeypatch.setattr("sys.argv", ["published.py", *arguments])
    published.main()
    assert "logistic: accuracy on test" in capsys.readouterr().out


def test_a_path_without_a_lake_is_one_line(published: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arguments = ["--only", "notmnist_sign", "--lake", str(tmp_path / "no"), "--work", str(tmp_path / "work")]
    monkeypatch.setattr("sys.argv", ["published.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        published.main()
    assert re.fullmatch(r"published.py: notmnist_sign: .*/no holds no finished build\..*", str(caught.value.code))


def test_mnist_is_read_alike_for_all_benchmarks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Known bytes give known arrays, and the rows of the competition's files."""
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    labels = np.arange(5, dtype=np.uint8)
    for part, rows in (("train", slice(0, 3)), ("t10k", slice(3, 5))):
        for name, header, array in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
            (tmp_path / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(bytes(header) + array[rows].tobytes()))
    found = import_module("mnist_idx").read_mnist(tmp_path, "t10k")
    np.testing.assert_array_equal(found[0], images[3:])
    np.testing.assert_array_equal(found[1], labels[3:])
    folder = import_module("digit_csv").write_digits(tmp_path / "csv", tmp_path)
    train, test = (np.loadtxt(folder / f"{name}.csv", int, delimiter=",", skiprows=1) for name in ("train", "test"))
    np.testing.assert_array_equal(train, np.column_stack([labels, images.reshape(5, -1)]))
    np.testing.assert_array_equal(test, images.reshape(5, -1))


def test_the_archives_of_another_size_stop_the_build(
    published: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for file in published.ARCHIVES:
        as_tar(tmp_path / file, {"A/a.png": b""})
    arguments = ["--only", "notmnist_sign", "--archives", str(tmp_path), "--work", str(tmp_path / "work")]
    monkeypatch.setattr("sys.argv", ["published.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        published.main()
    assert "bytes, the recipe asks for 247336696" in str(caught.value.code)
