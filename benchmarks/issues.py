"""How well issues are found: wrong labels on MNIST and notMNIST_small, planted faults among photographs and letters.

Labels: 5 % and 30 % of the labels are wrong, at random or as a similar class. Printed are the area under the ROC curve
of the scores, the precision among the first k, where k labels are wrong, and precision and recall at the default
threshold. Beside them stands self-confidence, the default score of cleanlab, from a logistic regression that predicts
out of fold, as cleanlab's tutorials do; by cleanlab itself if it is installed.

Pixels: precision and recall of each kind at its default threshold, beside those of cleanvision if it is installed.

    python benchmarks/issues.py [--images 60000] [--others 10000]
"""

import argparse
import io
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import polars as pl
import sklearn
import xxhash
from mnist_idx import read_mnist
from numpy.typing import NDArray
from photo_data import patterns
from PIL import Image, ImageFilter
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from pipeline.issues.features import features
from pipeline.issues.labels import find_suspects, folds_of
from pipeline.issues.measure import Measurements, measure
from pipeline.issues.quality import find_quality_issues
from pipeline.recipe.issues import KINDS, QUALITY

DATA = Path(__file__).parents[2] / "shared" / "data"
Pixels = NDArray[np.uint8]
# A class of similar pictures for each of the classes 0 to 9, and A to J.
SIMILAR = {"MNIST": [6, 7, 3, 5, 9, 3, 0, 1, 3, 4], "notMNIST": [7, 3, 6, 1, 5, 4, 2, 0, 9, 8]}
KINDS_OF_PIXELS = [kind for kind in QUALITY if not kind.startswith("odd")]


class Labelled(NamedTuple):
    """Gray pictures, (n, 28, 28), and their classes, (n,)."""

    pixels: Pixels
    labels: NDArray[np.int64]


def mnist(count: int) -> Labelled:
    pixels, labels = read_mnist(DATA / "mnist", "train")
    return Labelled(pixels[:count], labels[:count].astype(np.int64))


def notmnist(count: int) -> Labelled:
    """Read notMNIST_small in a random order, without its blank pictures."""
    pixels, labels = [], []
    with tarfile.open(DATA / "notMNIST_small.tar.gz") as archive:
        for member in archive:
            if member.name.endswith(".png") and member.size:
                file = archive.extractfile(member)
                picture = np.asarray(Image.open(io.BytesIO(file.read() if file else b"")))
                if picture.min() < picture.max():
                    pixels.append(picture)
                    labels.append("ABCDEFGHIJ".index(member.name.split("/")[-2]))
    order = np.random.default_rng(1).permutation(len(pixels))[:count]
    return Labelled(np.stack(pixels)[order], np.array(labels)[order])


def with_wrong(data: Labelled, share: float, similar: list[int] | None) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Make labels wrong: at random, or as a similar class."""
    chance = np.random.default_rng(7)
    wrong = chance.random(len(data.labels)) < share
    other = (
        (data.labels + chance.integers(1, 10, len(wrong))) % 10 if similar is None else np.array(similar)[data.labels]
    )
    return np.where(wrong, other, data.labels), wrong


def ours(pixels: Pixels, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    hashes = b"".join(xxhash.xxh3_128_digest(picture.tobytes()) for picture in pixels)
    folds = folds_of(np.frombuffer(hashes, np.uint8).reshape(-1, 16))
    return find_suspects(features(pixels[..., None]), labels, folds, 10).score


def others(pixels: Pixels, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Score labels by the self-confidence of a logistic regression: the default of cleanlab."""
    model = LogisticRegression(max_iter=50, C=0.01)
    inputs = pixels.reshape(len(pixels), -1).astype(np.float64) / 255
    with warnings.catch_warnings():
        # Its messages name every iteration; more of them take minutes a fold.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = cross_val_predict(model, inputs, labels, cv=5, method="predict_proba")
    if find_spec("cleanlab"):
        quality = import_module("cleanlab.rank").get_label_quality_scores(labels, found)
        return 1 - np.asarray(quality, np.float64)
    return np.asarray(1 - found[np.arange(len(labels)), labels], np.float64)


def measure_labels(name: str, data: Labelled, few: int) -> None:
    click.echo(f"\n{name}, {len(data.labels):,} pictures; the comparison is on the first {few:,}")
    named = "cleanlab" if find_spec("cleanlab") else "self-confidence (cleanlab is not installed)"
    for share in (0.05, 0.3):
        for way, similar in (("at random", None), ("as a similar class", SIMILAR[name])):
            labels, wrong = with_wrong(data, share, similar)
            started = time.perf_counter()
            score = ours(data.pixels, labels)
            seconds = time.perf_counter() - started
            listed = score >= KINDS["label"].threshold
            click.echo(
                f"{share:.0%} wrong {way}: imagelake {_ranked(score, wrong)}, at the threshold precision "
                f"{wrong[listed].mean():.3f} and recall {listed[wrong].mean():.3f}; {seconds:.0f} s"
            )
            part = ours(data.pixels[:few], labels[:few])
            other = others(data.pixels[:few], labels[:few])
            click.echo(f"    of {few:,}: imagelake {_ranked(part, wrong[:few])}; {named} {_ranked(other, wrong[:few])}")


def _ranked(score: NDArray[np.float64], wrong: NDArray[np.bool_]) -> str:
    first = np.argsort(-score, kind="stable")[: int(wrong.sum())]
    return f"AUROC {roc_auc_score(wrong, score):.4f}, precision {wrong[first].mean():.3f}"


def photographs() -> Pixels:
    """Cut tiles from a photograph that scikit-learn ships, and draw textures with sharp edges: (n, 160, 160, 3)."""
    china = np.asarray(Image.open(Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg").convert("RGB"))
    tiles = [china[y : y + 160, x : x + 160] for y in range(100, 260, 20) for x in range(0, 480, 20)]
    drawn = [np.asarray(picture) for number, picture in enumerate(patterns(3, 600)) if number % 6 not in (1, 5)]
    return np.stack(tiles + drawn)


def _blurred(radius: float) -> Callable[[Pixels], Pixels]:
    by = ImageFilter.GaussianBlur(radius)
    return lambda pixels: np.asarray(Image.fromarray(pixels.squeeze()).filter(by)).reshape(pixels.shape)


def _barred(pixels: Pixels) -> Pixels:
    made = pixels.copy()
    made[: len(made) // 8] = made[-len(made) // 8 :] = 0
    return made


FAULTS: Mapping[str, Callable[[Pixels], Pixels]] = {
    "blank": lambda pixels: np.full_like(pixels, 128),
    "dark": lambda pixels: (pixels * 0.12).astype(np.uint8),
    "bright": lambda pixels: (255 - (255 - pixels) * 0.12).astype(np.uint8),
    "low_contrast": lambda pixels: (115 + pixels * 0.08).astype(np.uint8),
    "blurry": _blurred(2),
    "border": _barred,
}


def measure_pixels(name: str, pixels: Pixels, kinds: list[str]) -> None:
    """Plant each fault in 5 % of the pictures."""
    order = np.random.default_rng(2).permutation(len(pixels))
    made, count = pixels.copy(), len(pixels) // 20
    planted = {kind: set(order[at * count : (at + 1) * count].tolist()) for at, kind in enumerate(kinds)}
    for kind, rows in planted.items():
        for row in rows:
            made[row] = FAULTS[kind](made[row])
    click.echo(f"\n{name}, {len(made):,} pictures, {count} with each fault: precision and recall")
    _print_kinds("imagelake", _found(made), planted)
    if not find_spec("cleanvision"):
        click.echo("    cleanvision is not installed")
        return
    _print_kinds("cleanvision", _by_cleanvision(made), planted)


def _found(pixels: Pixels) -> dict[str, set[int]]:
    frame = pl.DataFrame(measure(pixels), schema=list(Measurements._fields), orient="row").with_columns(
        image_id=pl.int_range(pl.len()).cast(pl.String).cast(pl.Binary),
        dataset=pl.lit("d"),
        label=pl.lit("a"),
        height=pixels.shape[1],
        width=pixels.shape[2],
        area=1,
    )
    rows = find_quality_issues(frame.lazy(), {kind: KINDS[kind].threshold for kind in KINDS_OF_PIXELS})
    return {kind: {int(row) for row in rows.filter(kind=kind)["image_id"]} for kind in KINDS_OF_PIXELS}


def _by_cleanvision(pixels: Pixels) -> dict[str, set[int]]:
    names = {"dark": "dark", "light": "bright", "low_information": "blank", "blurry": "blurry"}
    with tempfile.TemporaryDirectory() as folder:
        for row, picture in enumerate(pixels):
            Image.fromarray(picture.squeeze()).save(f"{folder}/{row}.png")
        lab = import_module("cleanvision").Imagelab(data_path=folder)
        lab.find_issues()
        rows = {Path(path).stem: values for path, values in lab.issues.to_dict("index").items()}
    return {kind: {int(row) for row, of in rows.items() if of[f"is_{name}_issue"]} for name, kind in names.items()}


def _print_kinds(tool: str, found: Mapping[str, set[int]], planted: Mapping[str, set[int]]) -> None:
    parts = []
    for kind, rows in planted.items():
        if kind in found:
            right = len(found[kind] & rows)
            parts.append(f"{kind} {right / max(len(found[kind]), 1):.3f} {right / len(rows):.3f}")
    rest = {kind: len(rows) for kind, rows in found.items() if kind not in planted and rows}
    click.echo(f"    {tool}: {'; '.join(parts)}{f'; also listed: {rest}' if rest else ''}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--others", type=int, default=10_000)
    options = parser.parse_args()
    photos = photographs()
    measure_pixels("photographs", photos, list(FAULTS))
    letters = notmnist(4_000).pixels[..., None]
    measure_pixels("letters", letters, [kind for kind in FAULTS if kind != "border"])
    measure_pixels(
        "digits", mnist(4_000).pixels[..., None], [kind for kind in FAULTS if kind not in ("border", "bright")]
    )
    measure_labels("MNIST", mnist(options.images), options.others)
    measure_labels("notMNIST", notmnist(options.images), options.others)


if __name__ == "__main__":
    main()
