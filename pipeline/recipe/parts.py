"""The tables of a recipe, but for the splits: what is read, how it is decoded and compared, what is trained."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from pipeline.recipe.models import BINARY, ModelName, with_defaults
from pipeline.recipe.part import Count, Name, Part, Size, Words

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]

Format = Literal[
    "folder", "tar", "zip", "webdataset", "list", "idx", "csv", "parquet", "npz", "mat", "cifar", "digits", "glyphs"
]


class LakePart(Part):
    """`[lake]`: where the tables are."""

    root: Annotated[str, StringConstraints(min_length=1)]

    @field_validator("root")
    @classmethod
    def _is_a_place(cls, root: str) -> str:
        if "://" in root and not root.startswith("s3://"):
            raise ValueError(f"a lake lies in a folder or at s3://bucket/prefix, not at {root}")
        return root


class SourcePart(Part):
    """`[[source]]`: one place images come from, and what must be true of it."""

    uri: str
    dataset: Name
    split: Name | None = None
    format: Format | None = None
    images: str | None = None
    labels: str | None = None
    transposed: bool | None = None
    truncated: Literal["refuse", "keep"] | None = None
    classes: Count | None = None
    min_per_class: Count | None = None
    bytes: Count | None = None
    digest: Annotated[str, StringConstraints(pattern=r"^(md5|sha1|sha256|sha512):[0-9a-f]{32,128}$")] | None = None
    rows: Count | None = None
    seed: int | None = None


class DecodePart(Part):
    """`[decode]`: the canonical picture.

    `size` is (height, width); without it every size is taken as it is. `mode` is L (gray) or RGB. A picture of another
    size or mode is rejected, or resized and converted. Transparent pixels are laid over `background` when converted.
    """

    size: tuple[Count, Count] | None = None
    mode: Literal["L", "RGB"] = "L"
    on_mismatch: Literal["reject", "resize"] = "reject"
    background: Annotated[int, Field(ge=0, le=255)] = 255
    max_pixels: Annotated[int, Field(ge=1, le=500_000_000)] = 64_000_000
    max_bytes: Count = 256 * 2**20

    @property
    def channels(self) -> int:
        """1 for L, 3 for RGB."""
        return 1 if self.mode == "L" else 3


class EmbeddingPart(Part):
    """`[[embedding]]`: vectors that the user brings, one an image, for rules such as "embedding:NAME:0.9".

    A Parquet file has the image's path in column `path` (or its id in `image_id`) and the vector in column `column`. A
    .npy file has one row an image: row i belongs to the path on line i of the text file `paths`, or without one to the
    image whose path is the number i, as sources made of rows have it.
    """

    name: Name
    uri: str
    dataset: Name
    split: Name | None = None
    column: str = "embedding"
    paths: str | None = None


class DedupPart(Part):
    """`[dedup]`: the rules to index and cluster by, as DESIGN spells them, and how pairs become clusters.

    `clusters` says how a rule with pairs makes clusters of them: "components" puts together whatever a chain of pairs
    connects, "stars" only images that are paired with one representative. `between = "splits"` compares only images of
    different source splits, which is all that leaks need, and quicker. A rule that finds more than `max_pairs`
    pairs is too loose to be of use, and stops the build.
    """

    rules: Words = ("exact",)
    clusters: Literal["components", "stars"] = "components"
    between: Literal["all", "splits"] = "all"
    max_pairs: Count = 20_000_000


class BaselinePart(Part):
    """`[[baseline]]`: a model to train and score on a split.

    `seeds` trains it so many times, with the seeds from `seed` on, each on its own sample of the train role.
    `train_on = "original"` leaves in the train role what sanitizing dropped: what the scores gain by it is what leakage
    does.

    Attributes:
        model: its name.
        split: the split it is trained and scored on.
        train_sizes: training images; "all" is what the train role has.
        seed: of the first fit.
        seeds: how many fits.
        train_on: the sanitized train role or the original.
        positive: a class: the model is asked whether an image is of it or not. Models for two classes need it.
        folds: judge each training image by a model trained on the other folds, so many in all.
        precision: with `positive`, find the threshold that gives this precision: on cross-validated scores where there
            are folds, else on the valid role.
        c: inverse strength of regularisation; svm-linear searches it where it is not given.
        alpha: strength of regularisation.
        max_iter: iterations or passes at most.
        epochs: passes over the training images at most.
        batch_size: images a step.
        learning_rate: of a step.
        patience: stop after so many epochs without a better accuracy on the valid role, and keep the best epoch.
        candidates: how many c are tried.
        search_size: training images that c is searched on.
        hidden: units of the hidden layer.
    """

    model: ModelName
    split: Name
    train_sizes: Annotated[tuple[Size, ...], Field(min_length=1)] = ("all",)
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    seeds: Count = 1
    train_on: Literal["sanitized", "original"] = "sanitized"
    positive: str | None = None
    folds: Annotated[int, Field(ge=2, strict=True)] | None = None
    precision: Annotated[float, Field(gt=0, lt=1, strict=True)] | None = None
    c: Positive | None = None
    alpha: Positive | None = None
    max_iter: Count | None = None
    epochs: Count | None = None
    batch_size: Count | None = None
    learning_rate: Positive | None = None
    patience: Count | None = None
    candidates: Count | None = None
    search_size: Size | None = None
    hidden: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands in whatever was written
        return with_defaults(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _asks_for_what_can_be(self) -> Self:
        if self.model in BINARY and self.positive is None:
            raise ValueError(f"'{self.model}' tells one class from the rest: say which, as in positive = \"5\"")
        if self.precision is not None and self.positive is None:
            raise ValueError('precision is of one class: say which, as in positive = "5"')
        return self
