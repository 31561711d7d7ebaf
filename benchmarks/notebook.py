"""notMNIST as in the notebooks, as one script: the reference of the benchmarks.

It follows the first assignment of Udacity's deep learning course (`1_notmnist.ipynb` in TensorFlow's examples), step by
step, and reuses extracted and pickled files as it does. Where the notebook asks the reader to write code (overlap,
sanitizing, the classifier), this script does what the published solutions do.

Run by `flow.py` in its own process: `notebook.py TRAIN.tar.gz TEST.tar.gz FOLDER` prints seconds by step and
what was found, as JSON.

References:
    https://github.com/tensorflow/examples/blob/master/courses/udacity_deep_learning/1_notmnist.ipynb
"""

import hashlib
import json
import pickle
import sys
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from stopwatch import Stopwatch

mpl.use("Agg")

import matplotlib.pyplot as plt
from sklearn.linear_model import LogisticRegression

SIDE, DEPTH = 28, 255.0
VALID = 300
TRAIN_SIZES = (50, 100, 1000)
_BLOCK = 2_000  # rows of the dense matrix at a time: all of it at once would be a gigabyte and more

Pictures = NDArray[np.float32]
Labels = NDArray[np.int64]


class Dataset(NamedTuple):
    """Pictures (n, 28, 28), -0.5 to 0.5, and labels (n,)."""

    pictures: Pictures
    labels: Labels


def extract(archive: Path, work: Path) -> Path:
    """Extract an archive, unless it is extracted already; return the folder of its class folders."""
    target = work / archive.name.removesuffix(".tar.gz")
    if not target.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
    return next(target.iterdir())


def load_letter(folder: Path) -> tuple[Pictures, list[str]]:
    """Read one class, file by file, into a preallocated array."""
    files = list(folder.iterdir())
    pictures = np.ndarray((len(files), SIDE, SIDE), dtype=np.float32)
    count, skipped = 0, []
    for file in files:
        try:
            pictures[count] = (np.asarray(Image.open(file)).astype(float) - DEPTH / 2) / DEPTH
            count += 1
        except (OSError, SyntaxError, ValueError):  # unreadable; Pillow's error for a broken PNG; another shape
            skipped.append(f"{folder.name}/{file.name}")
    return pictures[:count], skipped


def pickle_letters(root: Path) -> tuple[list[Path], list[str]]:
    """Pickle every class, unless the pickles exist; return the pickles and the files that could not be read."""
    made, skipped = [], []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        file = folder.with_suffix(".pickle")
        if not file.exists():
            pictures, bad = load_letter(folder)
            skipped += bad
            with file.open("wb") as stream:
                pickle.dump(pictures, stream, pickle.HIGHEST_PROTOCOL)
        made.append(file)
    return made, skipped


def merge(files: list[Path], chance: np.random.RandomState, valid: int = 0) -> tuple[Dataset, Dataset]:
    """Load the classes and shuffle each. Returns the rest, then `valid` rows with equal shares of the classes."""
    rest, held = [], []
    for label, file in enumerate(files):
        with file.open("rb") as stream:
            letters = pickle.load(stream)  # noqa: S301 - written a moment ago by this script
        chance.shuffle(letters)
        quota = valid // len(files)
        held.append(Dataset(letters[:quota], np.full(quota, label)))
        rest.append(Dataset(letters[quota:], np.full(len(letters) - quota, label)))
    return _joined(rest, chance), _joined(held, chance)


def _joined(parts: list[Dataset], chance: np.random.RandomState) -> Dataset:
    pictures = np.concatenate([part.pictures for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    order = chance.permutation(len(labels))
    return Dataset(pictures[order], labels[order])


def seen_by_md5(pictures: NDArray[Any], *others: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which pictures occur, byte for byte, in the others."""
    known = {_md5(picture) for other in others for picture in other}
    return np.array([_md5(picture) in known for picture in pictures])


def _md5(picture: NDArray[Any]) -> bytes:
    return hashlib.md5(picture.tobytes(), usedforsecurity=False).digest()


def seen_by_ratio(pictures: NDArray[np.floating], *others: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which pictures have inner(X, Y) / inner(|X|, |Y|) >= 1 with one of the others, block by block.

    In float32, as in the notebooks, it may flag a few more than the rule sign, see `pipeline.dedup.rules.sign`.
    """
    flagged = np.zeros(len(pictures), dtype=bool)
    for other in others:
        y = other.reshape(len(other), -1)
        for start in range(0, len(pictures), _BLOCK):
            x = pictures[start : start + _BLOCK].reshape(-1, SIDE * SIDE)
            ratio = np.inner(x, y) / np.inner(np.abs(x), np.abs(y))
            flagged[start : start + _BLOCK] |= (ratio >= 1).any(axis=1)
    return flagged


def train_and_score(train: Dataset, test: Dataset, kept: NDArray[np.bool_]) -> dict[str, list[float]]:
    """Fit at every size; return the accuracy by size on the original and the sanitized test set, and on the overlap."""
    x, tests = train.pictures.reshape(len(train.labels), -1), test.pictures.reshape(len(test.labels), -1)
    scores = {}
    for size in [*TRAIN_SIZES, len(x)]:
        model = LogisticRegression(solver="lbfgs", C=1.0, max_iter=100, random_state=0)
        model.fit(x[:size], train.labels[:size])
        parts = [np.ones(len(kept), dtype=bool), kept, ~kept]
        scores[str(size)] = [float(np.mean(model.predict(tests[part]) == test.labels[part])) for part in parts]
    return scores


def plot_samples(data: Dataset, file: Path) -> None:
    """Plot ten pictures of each class to PNG."""
    classes = np.unique(data.labels)
    figure, axes = plt.subplots(len(classes), 10, figsize=(10, len(classes)))
    for row, label in zip(axes, classes, strict=True):
        for axis, picture in zip(row, data.pictures[data.labels == label][:10], strict=True):
            axis.imshow(picture, cmap="gray")
            axis.axis("off")
    figure.savefig(file)


def run(train_archive: Path, test_archive: Path, work: Path) -> dict[str, Any]:
    """Run all steps in order; return seconds by step and the results."""
    watch, chance, saved = Stopwatch(), np.random.RandomState(133), work / "notMNIST.pickle"
    with watch("read"):
        roots = [extract(archive, work) for archive in (train_archive, test_archive)]
        (train_files, bad_train), (test_files, bad_test) = map(pickle_letters, roots)
    with watch("splits"):
        train, valid = merge(train_files, chance, VALID)
        test, _ = merge(test_files, chance)
    with watch("overlap, exact"):
        exact = seen_by_md5(test.pictures, train.pictures, valid.pictures)
    with watch("overlap, sign"):
        sign = seen_by_ratio(test.pictures, train.pictures, valid.pictures)
        valid_sign = seen_by_ratio(valid.pictures, train.pictures)
    with watch("splits"), saved.open("wb") as stream:
        kept = {"valid": ~valid_sign, "test": ~sign}
        save = {"train": tuple(train), "valid": tuple(valid), "test": tuple(test), "kept": kept}
        pickle.dump(save, stream, pickle.HIGHEST_PROTOCOL)
    with watch("arrays"), saved.open("rb") as stream:
        save = pickle.load(stream)  # noqa: S301 - written a moment ago by this script
        train, valid, test = (Dataset(*save[role]) for role in ("train", "valid", "test"))
        sanitized = [data.pictures[save["kept"][role]] for role, data in (("valid", valid), ("test", test))]
    with watch("baselines"):
        scores = train_and_score(train, test, save["kept"]["test"])
    with watch("report"):
        plot_samples(test, work / "samples.png")
    found = {
        "images": [len(train.labels) + len(valid.labels), len(test.labels)],
        "rejects": sorted(bad_train + bad_test),
        "test images seen in train (exact)": int(exact.sum()),
        "test images seen in train (sign)": int(sign.sum()),
        "test images kept": len(sanitized[1]),
    }
    return {"steps": watch.seconds, "found": found, "accuracy": scores}


if __name__ == "__main__":
    json.dump(run(*map(Path, sys.argv[1:4])), sys.stdout)
