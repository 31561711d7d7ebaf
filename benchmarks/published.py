"""Build the recipes of the classic notebooks, and print the published figures and ours.

    .venv/bin/python benchmarks/published.py [--only NAME] [--work DIR] [--json]

MNIST and the digits of the digit-recognizer competition (its 42,000 rows are MNIST's) are the real ones of
`../shared/data`. The large archive of notMNIST is missing: its recipes run on real letters, a sample of 3,493 of it
as train and the whole small archive as test, at the train sizes that this allows, and on generated glyphs of full size,
which are other letters in other faces, so that their accuracies say nothing about notMNIST. Takes about half an hour.
"""

import argparse
import json
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, NamedTuple

import polars as pl
from digit_csv import write_digits
from glyph_data import glyphs

from pipeline.builder.build import build
from pipeline.lake_handle import Lake
from pipeline.recipe import parse_recipe

RECIPES = Path(__file__).parents[1] / "data"
REAL = Path(__file__).parents[1].parent / "shared" / "data"
_FULL = 529_114

Values = dict[str, Any]


class Claim(NamedTuple):
    """A published figure, and the rows of scores to compare with it.

    Attributes:
        what: description.
        published: the figures, in the order of `rows`; empty if none was published.
        rows: picks the rows, in order.
    """

    what: str
    published: tuple[float, ...]
    rows: Callable[[pl.DataFrame], pl.DataFrame]


def _accuracy(model: str, role: str, eval_on: str = "sanitized") -> Callable[[pl.DataFrame], pl.DataFrame]:
    def rows(scores: pl.DataFrame) -> pl.DataFrame:
        asked = scores.filter(pl.col("rule").is_null(), model=model, role=role, eval_on=eval_on, metric="accuracy")
        return asked.sort("train_size")

    return rows


def _crossed(model: str, metric: str, label: str | None = None) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def rows(scores: pl.DataFrame) -> pl.DataFrame:
        of_class = pl.col("label").is_null() if label is None else pl.col("label") == label
        return scores.filter(of_class, model=model, eval_on="cross-validated", metric=metric).sort("point")

    return rows


CLAIMS: dict[str, list[Claim]] = {
    "notmnist_sign": [Claim("logistic, test", (), _accuracy("logistic", "test"))],
    "notmnist_md5_softmax": [Claim("softmax-sgd, test", (0.892,), _accuracy("softmax-sgd", "test"))],
    "notmnist_maxpool_within": [
        Claim("logistic, valid", (0.567, 0.684, 0.778, 0.777, 0.840), _accuracy("logistic", "valid"))
    ],
    "mnist_five_or_not": [
        Claim("sgd-binary, folds", (0.9645, 0.9656, 0.9465), _crossed("sgd-binary", "fold_accuracy")),
        Claim("never, folds", (0.9124, 0.9055, 0.9111), _crossed("never", "fold_accuracy")),
        Claim("never, mean", (0.90965,), _crossed("never", "accuracy")),
        Claim("sgd-binary, precision", (0.795,), _crossed("sgd-binary", "precision", "5")),
        Claim("sgd-binary, recall", (0.734,), _crossed("sgd-binary", "recall", "5")),
        Claim("sgd-binary, F1", (0.763,), _crossed("sgd-binary", "f1", "5")),
    ],
    "digit_recognizer": [
        Claim("svm-linear, held out", (0.938,), _accuracy("svm-linear", "test")),
        Claim("dense, held out", (0.976,), _accuracy("dense", "test")),
        Claim("lenet, held out", (0.984,), _accuracy("lenet", "test")),
    ],
    "mnist": [
        Claim("logistic, official test", (), _accuracy("logistic", "test", "original")),
        Claim("svm-linear, official test", (0.938,), _accuracy("svm-linear", "test", "original")),
        Claim("dense, official test", (0.976,), _accuracy("dense", "test", "original")),
        Claim("lenet, official test", (0.984,), _accuracy("lenet", "test", "original")),
    ],
}


def letters(values: Values, _work: Path) -> Values:
    """Run on real letters: the sample of the large archive as train, the small archive as test."""
    files = ("notMNIST_large_sample.tar.gz", "notMNIST_small.tar.gz")
    for source, file, least in zip(values["source"], files, (300, 1_800), strict=True):
        source |= {"uri": str(REAL / file), "min_per_class": least}
    split = values["split"][0]
    split["train"] = {"from": "train"}
    split["valid"]["size"] = 300
    for baseline in values["baseline"]:
        if "train_sizes" in baseline:
            baseline["train_sizes"] = [50, 100, 1000, "all"]
    return values


def full_glyphs(values: Values, work: Path) -> Values:
    """Run on generated glyphs of the size of the real archives."""
    drawn = glyphs(work, _FULL)
    for source, file in zip(values["source"], (drawn.train, drawn.test), strict=True):
        source["uri"] = str(file)
    return values


def mnist(values: Values, _work: Path) -> Values:
    """Run on the real MNIST files."""
    values["source"][0]["uri"] = str(REAL / "mnist")
    return values


def competition(values: Values, work: Path) -> Values:
    """Run on the real digits in the competition's form."""
    folder = write_digits(work / "digit_recognizer_csv", REAL / "mnist")
    for source, file in zip(values["source"], ("train.csv", "test.csv"), strict=True):
        source["uri"] = str(folder / file)
    return values


DATA: dict[str, list[tuple[str, Callable[[Values, Path], Values]]]] = {
    "notmnist_sign": [("real letters", letters), ("glyphs, full size", full_glyphs)],
    "notmnist_md5_softmax": [("real letters", letters), ("glyphs, full size", full_glyphs)],
    "notmnist_maxpool_within": [("real letters", letters), ("glyphs, full size", full_glyphs)],
    "mnist_five_or_not": [("MNIST", mnist)],
    "digit_recognizer": [("MNIST's digits", competition)],
    "mnist": [("MNIST", mnist)],
}


def figures(name: str, work: Path) -> Iterator[dict[str, Any]]:
    """Build a recipe on all available data, and read its scores."""
    for data, place in DATA[name]:
        values = place(tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8")), work)
        with TemporaryDirectory(dir=work) as folder:
            started = time.perf_counter()
            built = build(parse_recipe(values, base=Path(folder)))
            seconds = time.perf_counter() - started
            scores = Lake(built.root).scan("scores").collect()
        for claim in CLAIMS[name]:
            rows = claim.rows(scores)
            yield {
                "recipe": name,
                "data": data,
                "what": claim.what,
                "train sizes": rows["train_size"].to_list(),
                "published": list(claim.published),
                "ours": rows["value"].to_list(),
                "fit seconds": rows["seconds"].to_list(),
                "build seconds": seconds,
            }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(DATA), action="append")
    parser.add_argument("--work", type=Path, default=Path(gettempdir()) / "imagelake-bench-data")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    for name in asked.only or DATA:
        for row in figures(name, asked.work):
            sys.stdout.write((json.dumps(row) if asked.json else _line(row)) + "\n")
            sys.stdout.flush()


def _line(row: dict[str, Any]) -> str:
    ours = ", ".join(f"{value:.5f}" for value in row["ours"])
    published = ", ".join(f"{value:g}" for value in row["published"]) or "-"
    sizes = ", ".join(f"{size:,}" for size in dict.fromkeys(row["train sizes"]))
    took = f"fits {sum(row['fit seconds']):,.0f} s, build {row['build seconds']:,.0f} s"
    return f"{row['recipe']} | {row['data']} | {row['what']} | {sizes} | {published} | {ours} | {took}"


if __name__ == "__main__":
    main()
