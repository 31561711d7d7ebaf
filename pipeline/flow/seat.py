"""The examples of a split, read once for all of its baselines; and, of what a baseline missed, who that was."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.arrays.gather import gather
from pipeline.arrays.locate import locate
from pipeline.baselines.exam import Exam
from pipeline.baselines.model import Examples
from pipeline.baselines.nearest import find_nearest
from pipeline.baselines.parts import Mask, name_parts
from pipeline.baselines.score import Misses
from pipeline.errors import BaselineError
from pipeline.handle import Lake
from pipeline.hashing import flat
from pipeline.lake.reading import file_names, scan_table
from pipeline.recipe import BaselinePart

_ROLES = ("valid", "test")


class Split(NamedTuple):
    """The labelled images of a split's roles: columns image_id, label_index, kept, ordered by rank."""

    name: str
    train: pl.DataFrame
    valid: pl.DataFrame
    test: pl.DataFrame

    def pool(self, spec: BaselinePart) -> NDArray[np.int64]:
        """Give the positions in `train` of all images that a baseline may be trained on, in the order of the split."""
        if spec.train_on == "original":
            return np.arange(len(self.train))
        return np.flatnonzero(self.train["kept"].to_numpy())


class Seated(NamedTuple):
    """A split with the pixels of its roles.

    Attributes:
        split: the split.
        needed: (k,) positions in its train role of the images that were read, ascending.
        train: these images.
        roles: valid, where there is one, and test.
        names: of the classes.
        shape: (height, width, channels) of all of them.
    """

    split: Split
    needed: NDArray[np.int64]
    train: Examples
    roles: Mapping[str, Examples]
    names: list[str]
    shape: tuple[int, int, int]

    def exam(self, spec: BaselinePart, overlaps: Mapping[str, Mask]) -> Exam:
        """Put together what a baseline is trained and examined on; `overlaps` by rule, of its test images."""
        known = {"valid": dict[str, Mask](), "test": dict(overlaps)}
        parts = {
            role: name_parts(getattr(self.split, role)["kept"].to_numpy(), known[role])
            for role in _ROLES
            if role in self.roles
        }
        dropped = int((~self.split.train["kept"].to_numpy()[self.split.pool(spec)]).sum())
        return Exam(self.train, self.roles, parts, self.names, self.shape, dropped)

    def name_misses(self, missed: Misses | None) -> pl.DataFrame:
        """Name the test images that were missed, each with the nearest of the images that were trained on.

        Returns:
            What the misses table says of each image, in the order of the test role; no columns of the run itself.
        """
        if missed is None or not len(missed.rows):
            return pl.DataFrame()
        near = find_nearest(self.roles["test"].pixels[missed.rows], self.train.pixels[missed.seen])
        places = missed.seen[near.place]
        asked = np.array(missed.names)
        return pl.DataFrame(
            {
                "train_size": np.full(len(places), missed.size),
                "seed": np.full(len(places), missed.seed),
                "image_id": self.split.test["image_id"][missed.rows],
                "kept": self.split.test["kept"][missed.rows],
                "label": asked[missed.labels],
                "predicted": asked[missed.predicted],
                "probability": missed.probability,
                "margin": missed.margin,
                "nearest_id": self.split.train["image_id"][self.needed[places]],
                "nearest_label": np.array(self.names)[self.train.labels[places]],
                "distance": near.distance,
            }
        )


def read_split(root: str, name: str) -> Split:
    """Read who is in which role; empty where the split has not been drawn yet."""
    columns = ("role", "rank", "image_id", "label_index", "kept")
    rows = scan_table(root, "splits", None).filter(pl.col("split_name") == name).select(columns).collect()
    rows = rows.filter(pl.col("label_index").is_not_null()).sort("role", "rank")
    return Split(name, *(rows.filter(role=role) for role in ("train", "valid", "test")))


def seat(root: str, split: Split, needed: NDArray[np.int64]) -> Seated:
    """Read the pixels of a split: of its train role what is needed, of the others all.

    Raises:
        BaselineError: the images are not all of one size.
    """
    read = {"train": split.train[needed], "valid": split.valid, "test": split.test}
    files = file_names(root, "images", None)
    where = {role: locate(files, rows["image_id"]) for role, rows in read.items() if len(rows)}
    shapes = {role: place.shape for role, place in where.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{role} {'x'.join(map(str, shape))}" for role, shape in shapes.items())
        raise BaselineError(
            f"split '{split.name}': its roles have pictures of different shapes ({listed}). Set decode.size, so that "
            "all are of one size, or take its baselines out."
        )
    examples = {
        role: Examples(flat(gather(place)), read[role]["label_index"].cast(pl.Int64).to_numpy())
        for role, place in where.items()
    }
    train = examples.pop("train")
    return Seated(split, needed, train, examples, Lake.working(root).class_names(split.name), shapes["train"])
