"""Models that a lake keeps, and what they predict: of splits, of files, and as CSV."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import toys
from commands import Run
from lakes import versions
from making import as_folder, encoded, files_of, recipe

from pipeline.baselines.stored import LoadedModel, predict_classes
from pipeline.builder.build import Built, build, plan
from pipeline.engines.local import LocalEngine
from pipeline.errors import BaselineError, LakeError, RecipeError
from pipeline.export import export
from pipeline.lake_handle import Lake
from pipeline.predictions import predict_files
from pipeline.recipe import Recipe
from pipeline.repair import repair
from pipeline.verify import verify

pytestmark = pytest.mark.slow

MAIN = {"name": "main", "train": {"from": "train", "size": 60}, "test": {"from": "train", "size": 30}}
SUBMISSION = {"name": "submission", "train": {"from": "train"}, "test": {"from": "test"}}
LOGISTIC = {"model": "logistic", "split": "main", "train_sizes": [20, "all"], "max_iter": 20}
PREDICTS = {**LOGISTIC, "predict": ["submission"]}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Labelled rows of two classes that a model can separate, and rows of the same kind without labels."""
    known, query = toys.examples(90), toys.examples(40, seed=5)
    write_rows(tmp_path / "train.csv", known.pixels, known.labels)
    write_rows(tmp_path / "test.csv", query.pixels)
    np.save(tmp_path / "truth.npy", query.labels)
    return tmp_path


def write_rows(file: Path, pixels: np.ndarray[Any, Any], labels: np.ndarray[Any, Any] | None = None) -> None:
    """Write pictures as in the digit recognizer competition."""
    rows = pl.DataFrame(pixels, schema=[f"pixel{number}" for number in range(pixels.shape[1])])
    (rows if labels is None else rows.insert_column(0, pl.Series("label", labels))).write_csv(file)


def make(base: Path, *baselines: dict[str, Any], splits: Sequence[dict[str, Any]] = (MAIN, SUBMISSION)) -> Built:
    return build(recipe_of(base, *baselines, splits=splits), engine=LocalEngine(1))


def recipe_of(base: Path, *baselines: dict[str, Any], splits: Sequence[dict[str, Any]] = (MAIN, SUBMISSION)) -> Recipe:
    listed = ({"uri": "train.csv"}, {"uri": "test.csv", "split": "test"})
    decode = {"size": [12, 12], "mode": "L"}
    return recipe(base, *listed, decode=decode, split=splits, baseline=baselines)


def stages(built: Built) -> list[tuple[str, str]]:
    return [(item.stage, item.reason) for item in built.done]


def test_every_image_of_a_split_is_predicted_once(base: Path) -> None:
    make(base, {**PREDICTS, "predict_scores": True})
    lake = Lake(base / "lake")
    found = lake.scan("predictions").collect()
    wanted = lake.scan("splits").filter(split_name="submission").select("image_id", "role").collect()
    assert found.select("image_id", "role").sort(pl.all()).equals(wanted.sort(pl.all()))
    assert found["train_size"].unique().to_list() == [60]
    pixels, _ = lake.arrays("submission", "test")
    direct = lake.predict(pixels)
    test = found.filter(role="test")
    assert test["predicted"].equals(direct["predicted"])
    assert test["probability"].equals(direct["probability"])
    assert test["class_scores"].to_list() == direct["class_scores"].to_list()
    named = test.join(lake.scan("images").select("image_id", "path").collect(), on="image_id").cast({"path": pl.Int64})
    assert (named["predicted"].cast(pl.Int64).to_numpy() == np.load(base / "truth.npy")[named["path"]]).mean() > 0.9


def test_a_model_is_kept_for_every_train_size(base: Path) -> None:
    make(base, LOGISTIC)
    models = Lake(base / "lake").scan("models").collect()
    assert models.select("train_size", "seed").rows() == [(20, 0), (60, 0)]
    assert models["classes"].to_list() == [["0", "1", "2"]] * 2
    with np.load(io.BytesIO(models["weights"][0])) as weights:
        assert sorted(weights.files) == ["coefficients", "intercept", "known"]


def test_predictions_need_no_training(base: Path) -> None:
    make(base, LOGISTIC)
    scores = versions(str(base / "lake"))["scores"]
    built = make(base, PREDICTS)
    assert stages(built) == [("predictions", "new")]
    assert stages(make(base, {**PREDICTS, "predict": ["submission/test"]})) == [("predictions", "its settings changed")]
    assert set(Lake(base / "lake").scan("predictions").collect()["role"]) == {"test"}
    assert stages(make(base, LOGISTIC)) == [("predictions", "no longer in the recipe")]
    assert Lake(base / "lake").scan("predictions").collect().is_empty()
    assert versions(str(base / "lake"))["scores"] == scores


def test_new_images_are_predicted_at_the_next_build(base: Path) -> None:
    make(base, PREDICTS)
    more = toys.examples(45, seed=5)
    write_rows(base / "test.csv", more.pixels)
    reasons = [item.reason for item in plan(recipe_of(base, PREDICTS)) if item.stage == "predictions"]
    assert reasons == ["only if its run or split changes"]
    assert ("predictions", "its input changed") in stages(make(base, PREDICTS))
    assert Lake(base / "lake").scan("predictions").filter(role="test").collect().height == 45
    assert stages(make(base, PREDICTS)) == []


def test_a_baseline_without_labelled_test_images_is_scored_on_what_there_is(base: Path) -> None:
    make(base, {**LOGISTIC, "split": "submission", "train_sizes": ["all"], "predict": ["submission/test"]})
    lake = Lake(base / "lake")
    scores = lake.scan("scores").collect()
    assert set(scores["role"]) == {"train"}
    assert (scores.filter(metric="accuracy")["value"] > 0.9).all()
    assert lake.scan("misses").collect().is_empty()
    assert lake.scan("predictions").collect().height == 40


def test_a_split_without_a_test_role_is_scored_and_predicted(base: Path) -> None:
    only = {"name": "only", "train": {"from": "train"}}
    make(base, {**LOGISTIC, "split": "only", "train_sizes": ["all"], "predict": ["only"]}, splits=(only,))
    assert Lake(base / "lake").scan("predictions").collect().height == 90


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("submision", "did you mean 'submission'"),
        ("main/valid", "split 'main' has no role 'valid'; its roles: train, test"),
        ("main/all", "predict"),
    ],
)
def test_what_cannot_be_predicted_is_named(base: Path, target: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_of(base, {**LOGISTIC, "predict": [target]})


def test_keys_for_predictions_change_no_digest_where_they_are_not_set(base: Path) -> None:
    unset = recipe_of(base, LOGISTIC)
    assert unset.digest == recipe_of(base, {**LOGISTIC, "predict": []}).digest
    assert unset.digest != recipe_of(base, PREDICTS).digest


def test_a_csv_has_one_row_an_image_in_the_order_of_the_file(base: Path, tmp_path: Path) -> None:
    make(base, PREDICTS)
    lake = Lake(base / "lake")
    export(lake.root, "submission", tmp_path / "csv", "predictions", engine=LocalEngine(1))
    found = pl.read_csv(tmp_path / "csv" / "predictions.csv", schema_overrides={"predicted": pl.String})
    assert found.columns == ["path", "predicted", "probability", "run"]
    assert found["path"].to_list() == list(range(40))
    stored = lake.scan("predictions").filter(role="test").join(lake.scan("images"), on="image_id")
    stored = stored.select(pl.col("path").cast(pl.Int64), "predicted", "probability").sort("path")
    assert found.select("path", "predicted", "probability").equals(stored.collect())
    assert set(found["run"]) == {"logistic@main"}
    export(lake.root, "submission", tmp_path / "kaggle", "predictions", kaggle=True, engine=LocalEngine(1))
    submitted = pl.read_csv(tmp_path / "kaggle" / "predictions.csv", schema_overrides={"Label": pl.String})
    assert submitted["ImageId"].to_list() == list(range(1, 41))
    assert submitted["Label"].equals(found["predicted"].rename("Label"))
    with pytest.raises(LakeError, match="of one file"):
        export(lake.root, "submission", tmp_path / "no", "predictions", kaggle=True, roles=("train", "test"))


def test_files_are_predicted_as_the_lake_reads_them(base: Path, run: Run) -> None:
    make(base, LOGISTIC)
    lake = Lake(base / "lake")
    query = toys.examples(6, seed=7)
    write_rows(base / "query.csv", query.pixels)
    found = predict_files(lake, [str(base / "query.csv")])
    assert found.images["predicted"].cast(pl.Int64).to_list() == query.labels.tolist()
    assert found.images["predicted"].equals(lake.predict(query.pixels.reshape(-1, 12, 12))["predicted"])
    as_folder(base / "photos", {**files_of(2), "A/broken.png": b"\x89PNG broken"})
    file = base / "photos" / "A" / "00000.png"
    result = run("predict", lake.root, file, base / "photos", "--run", "logistic@main", "--train-size", 20, "--json")
    assert result.exit_code == 1
    assert str(file) in result.output
    assert "broken.png" in result.output


def test_a_file_of_a_lake_of_working_pictures_gets_its_stored_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the files that are predicted have several shapes; the order is that of the paths."""
    chance = np.random.default_rng(0)
    sides = {"JPEG": (240, 320), "PNG": (120, 160)}
    files = {
        f"{'AB'[n % 2]}/{n:02}.{form.lower()}": encoded(chance.integers(0, 256, (*sides[form], 3), np.uint8), form)
        for n, form in enumerate(["JPEG", "PNG", "PNG", "JPEG"] * 6)
    }
    as_folder(tmp_path / "in", files)
    lake = Lake(
        build(
            recipe(
                tmp_path,
                {"uri": "in"},
                decode={"longest": 20, "mode": "RGB"},
                split=[{**MAIN, "train": {"from": "train", "size": 16}, "test": {"from": "train"}}],
                baseline=[{**LOGISTIC, "train_sizes": ["all"]}],
            ),
            engine=LocalEngine(1),
        ).root
    )
    seen: list[Any] = []

    def predict(loaded: LoadedModel, pixels: Any) -> pl.DataFrame:
        seen.append(pixels)
        return predict_classes(loaded, pixels)

    monkeypatch.setattr("pipeline.predictions.predict_classes", predict)
    found = predict_files(lake, [str(tmp_path / "in")]).images
    stored = lake.scan("images").sort("path").collect()
    assert found["path"].to_list() == [f"{tmp_path}/in/{path}" for path in stored["path"]]
    assert np.concatenate(seen).tobytes() == b"".join(stored["pixels"])
    upright = encoded(chance.integers(0, 256, (320, 240, 3), np.uint8), "PNG")
    as_folder(tmp_path / "more", {"1.png": upright, "2.jpeg": files["A/00.jpeg"], "3.png": upright})
    more = predict_files(lake, [str(tmp_path / "more")]).images
    assert [Path(path).name for path in more["path"]] == ["1.png", "2.jpeg", "3.png"]
    assert more.filter(pl.col("path").str.ends_with("2.jpeg"))["probability"][0] == found["probability"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--run", "lenet@main"), "Models: logistic@main"),
        (("--train-size", "7"), "Train sizes: 20, 60"),
    ],
)
def test_a_model_that_is_not_there_is_named(base: Path, run: Run, arguments: tuple[str, ...], message: str) -> None:
    make(base, LOGISTIC)
    with pytest.raises(BaselineError, match=message):
        run("predict", base / "lake", base / "test.csv", *arguments)


def test_the_best_model_is_chosen_and_never_a_dummy(base: Path) -> None:
    weak = {"model": "softmax-sgd", "split": "main", "epochs": 1, "learning_rate": 1e-9}
    dummy = {"model": "never", "split": "main", "positive": "0"}
    make(base, weak, dummy, LOGISTIC)
    lake = Lake(base / "lake")
    assert lake.model().title == "logistic@main"
    assert lake.model("never@main").names == ["not 0", "0"]


@pytest.mark.parametrize("table", ["models", "predictions"])
def test_a_lost_table_is_made_again(base: Path, table: str) -> None:
    make(base, PREDICTS)
    lake = base / "lake"
    before = Lake(lake).scan(table).drop("release").collect()
    for file in (lake / table).rglob("*.parquet"):
        file.write_bytes(file.read_bytes()[:-9] + b"\x00" * 9)
    assert any(check.faults for check in verify(str(lake)))
    built = repair(recipe_of(base, PREDICTS), engine=LocalEngine(1))
    assert not built.still_damaged
    assert all(not check.faults for check in verify(str(lake)))
    assert Lake(lake).scan(table).drop("release").collect().equals(before)
