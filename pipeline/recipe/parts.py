"""The tables of a recipe, but for the splits: what is read, how it is decoded and compared, what is trained.

What every part of a recipe is made of.
"""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator, model_validator

from pipeline.recipe.baselines import BINARY, ModelName, with_defaults

RoleName = Literal["train", "valid", "test"]
ROLES: tuple[RoleName, ...] = ("train", "valid", "test")

# Names become folder names of the lake and words of SQL, so they stay plain.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
Count = Annotated[int, Field(ge=1, strict=True)]


def _size_or_all(value: Any) -> Any:  # noqa: ANN401 - pydantic hands in whatever was written
    if value == "all" or (type(value) is int and value >= 1):
        return value
    raise ValueError(f'{value!r} is neither a whole number of 1 or more nor "all"')


def _one_may_be_bare(value: Any) -> Any:  # noqa: ANN401 - pydantic hands in whatever was written
    return (value,) if isinstance(value, str) else value


# Several words, or one without brackets.
Words = Annotated[tuple[str, ...], BeforeValidator(_one_may_be_bare)]

Size = Annotated[int | Literal["all"], BeforeValidator(_size_or_all)]


class Part(BaseModel):
    """A table of the recipe: unknown keys are errors, and nothing changes it once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]

Format = Literal[
    "folder", "tar", "zip", "webdataset", "list", "idx", "csv", "parquet", "npz", "mat", "cifar", "digits", "glyphs"
]


class LakePart(Part):
    """`[lake]`: where the tables are.

    Attributes:
        root: a folder or s3://bucket/prefix. Without it the folder NAME-lake beside the recipe NAME.toml.
    """

    root: Annotated[str, StringConstraints(min_length=1)] | None = None

    @field_validator("root")
    @classmethod
    def _is_a_place(cls, root: str | None) -> str | None:
        if root and "://" in root and not root.startswith("s3://"):
            raise ValueError(f"a lake lies in a folder or at s3://bucket/prefix, not at {root}")
        return root


class SourcePart(Part):
    """`[[source]]`: one place images come from, and what must be true of it.

    Attributes:
        uri: a file, a folder, a pattern of files, or an address.
        dataset: its name; without it, a name made of the uri.
        split: of all its images. Without `split` and `splits` it follows from folders such as train/ and test/,
            by file names, or by names of arrays, and is "train" where none of these says anything.
        splits: by split, the folders or files of the source that belong to it.
        format: its form; without it, the content decides.
        images: the column, array, or ending of the images, where names do not tell.
        labels: likewise of the labels; "" where there are none.
        transposed: whether IDX pictures lie column by column.
        truncated: what becomes of a tar that is cut short: "refuse" it, or "keep" what it still has.
        classes: how many classes there must be.
        min_per_class: how many images each class must have.
        bytes: how many bytes the file must have.
        digest: "md5:...", "sha1:...", "sha256:..." or "sha512:..." that the file must have.
        rows: how many images to generate.
        seed: of generated images.
    """

    uri: str
    dataset: Name
    split: Name | None = None
    splits: Annotated[dict[Name, Words], Field(min_length=1)] | None = None
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

    @model_validator(mode="after")
    def _names_each_folder_once(self) -> Self:
        if self.splits is None:
            return self
        if self.split is not None:
            raise ValueError("split and splits exclude one another: take one out")
        folders = sorted(f"{folder.strip('/')}/" for named in self.splits.values() for folder in named)
        if "/" in folders:
            raise ValueError('splits names an empty folder; "*" is everything that no other split names')
        nested = next((pair for pair in pairwise(folders) if pair[1].startswith(pair[0])), None)
        if nested:
            raise ValueError(
                f"splits names {nested[0]} and {nested[1]}: no folder may be named twice or lie in another"
            )
        return self


Mode = Literal["L", "RGB"]
OnMismatch = Literal["convert", "reject"]


class DecodePart(Part):
    """`[decode]`: the pixels that every image is brought to.

    Attributes:
        size: (height, width); without it every image keeps its own size.
        mode: L (gray) or RGB. Without it the first build of a lake decides by the content, and later builds keep that.
        on_mismatch: what becomes of an image of another mode or size: "convert" (the default) converts and resizes it,
            "reject" makes it a reject. Lakes of version 0.5 and earlier keep "reject" unless the recipe says otherwise.
        fit: how an image is brought to `size`: "stretch" it, "crop" its middle, or "pad" it with `background`.
        background: gray value below transparent pixels and around padded images.
        max_pixels: an image with more pixels is a reject.
        max_bytes: a file with more bytes is a reject.
    """

    size: tuple[Count, Count] | None = None
    mode: Mode | None = None
    on_mismatch: OnMismatch | None = None
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    background: Annotated[int, Field(ge=0, le=255)] = 255
    max_pixels: Annotated[int, Field(ge=1, le=500_000_000)] = 64_000_000
    max_bytes: Count = 256 * 2**20

    @field_validator("on_mismatch", mode="before")
    @classmethod
    def _resize_is_convert(cls, value: object) -> object:
        """Read "resize", the name of "convert" until version 0.5."""
        return "convert" if value == "resize" else value

    @model_validator(mode="after")
    def _fit_needs_a_size(self) -> Self:
        if self.fit != "stretch" and self.size is None:
            raise ValueError(f'fit = "{self.fit}" needs size = [height, width]')
        return self

    @property
    def converts(self) -> bool:
        """Whether an image of another mode or size is converted."""
        return self.on_mismatch != "reject"

    @property
    def channels(self) -> int:
        """1 for L, 3 for RGB.

        Raises:
            ValueError: the mode is not decided yet; see `pipeline.builder.image_mode`.
        """
        if self.mode is None:
            raise ValueError("decode.mode is not decided yet")
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
