"""Cross-validate the classifier of "MNIST: 5 or not" with 5 and with up to 1,000 passes, on several orders of images.

    .venv/bin/python benchmarks/sgd_passes.py [--orders N] [--json]

Plain scikit-learn, as a notebook uses it: raw pixels, alpha 0.0001, seed 42, three folds of the 60,000 training images.
The default of SGDClassifier was 5 passes up to version 0.20. Later versions make at most 1,000, and stop after
five passes that do not lower the loss by 0.001. Both settings see the same orders.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mnist_idx import read_mnist
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import precision_score, recall_score
from sklearn.model_selection import StratifiedKFold

MNIST = Path(__file__).parents[1].parent / "shared" / "data" / "mnist"
PASSES = (5, 1000)
_FIVE = 5


def read_digits(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Read the training images, (60000, 784) of 0 to 255, and whether each is a 5."""
    images, labels = read_mnist(folder, "train")
    return images.reshape(-1, 784).astype(np.float64), labels == _FIVE


def cross_validate(images: NDArray[np.float64], fives: NDArray[np.bool_], passes: int) -> dict[str, Any]:
    """Predict each image by the model of the other two folds."""
    predicted = np.zeros(len(fives), bool)
    folds, made = [], []
    for train, test in StratifiedKFold(3).split(images, fives):
        model = SGDClassifier(alpha=0.0001, max_iter=passes, tol=1e-3, random_state=42)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(images[train], fives[train])
        predicted[test] = model.predict(images[test])
        folds.append(float((predicted[test] == fives[test]).mean()))
        made.append(int(model.n_iter_))
    return {
        "fold_accuracy": folds,
        "accuracy": statistics.mean(folds),
        "precision": float(precision_score(fives, predicted)),
        "recall": float(recall_score(fives, predicted)),
        "passes made": made,
    }


def measure(folder: Path, orders: int) -> Iterator[dict[str, Any]]:
    """Cross-validate every order with every number of passes."""
    images, fives = read_digits(folder)
    for seed in range(orders):
        order = np.random.default_rng(seed).permutation(len(fives))
        for passes in PASSES:
            started = time.perf_counter()
            found = cross_validate(images[order], fives[order], passes)
            yield {"order": seed, "passes": passes, **found, "seconds": time.perf_counter() - started}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, default=MNIST, help="folder of the four gzipped IDX files")
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.orders < 2:  # a standard deviation needs two
        parser.error("--orders must be 2 or more")
    rows = []
    for row in measure(args.mnist, args.orders):
        rows.append(row)
        if args.json:
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
    if not args.json:
        sys.stdout.write("\n".join(summarise(rows)) + "\n")


def summarise(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Give mean and standard deviation over the orders, by number of passes, and of the difference."""
    yield f"{'':24}{'5 passes':>20}{'up to 1,000':>20}{'difference':>20}"
    for metric in ("accuracy", "precision", "recall"):
        few, many = ([row[metric] for row in rows if row["passes"] == passes] for passes in PASSES)
        differences = [one - other for one, other in zip(many, few, strict=True)]
        spread = [f"{statistics.mean(one):.4f} (sd {statistics.stdev(one):.4f})" for one in (few, many, differences)]
        yield f"{metric:24}" + "".join(f"{one:>20}" for one in spread)


if __name__ == "__main__":
    main()
