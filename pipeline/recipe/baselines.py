"""`[[baseline]]`: one part per model, with only the settings of that model. The key `model` chooses the part.

`pipeline.baselines.models` has the code of each model.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, SerializerFunctionWrapHandler, StringConstraints, model_serializer, model_validator

from pipeline.recipe.parts import ROLES, Count, Name, Part, Positive, Size

_PREDICT_KEYS = ("predict", "predict_scores")
# A split, or a role of a split.
_TARGET = r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/(train|valid|test))?$"


class BaselinePart(Part):
    """The settings that all models have.

    The order of the fields is part of the lake's format: a dump of a part is stored with its scores.

    Attributes:
        model: name of the model.
        split: the split to train and score on.
        train_sizes: numbers of training images; "all" is the whole train role.
        seed: seed of the first fit.
        seeds: number of fits, with the seeds `seed`, `seed` + 1 and so on, each on its own sample of the train role.
        train_on: the sanitized train role or the original one. "original" also trains on the images that sanitizing
            dropped: the gain in the scores is the effect of leakage.
        replacement: draw the training images at random with replacement, so that some occur several times. Without it,
            the first fit takes the first images of the train role, whose order is random.
        positive: a class: the model decides whether an image is of it or not. Models for two classes need it.
        folds: number of folds for cross-validation: each training image is predicted by a model that was trained on
            the other folds.
        precision: with `positive`, find the threshold that gives this precision: on cross-validated scores if there
            are folds, else on the valid role.
        predict: splits whose images the model predicts, with or without labels: "submission" for all of a split,
            "submission/test" for one role. The result is the table `predictions`.
        predict_scores: also keep the score of every class.
    """

    # Models that separate one class from all others.
    binary: ClassVar[bool] = False
    # Models that learn nothing: their score is one to compare others with.
    dummy: ClassVar[bool] = False
    # Keys that came after version 0.5, with their defaults. A dump has them only if they have another value, so that
    # runs and recipes of earlier versions keep their digests.
    later: ClassVar[Mapping[str, Any]] = {"replacement": False, "predict": (), "predict_scores": False}

    model: str
    split: Name
    train_sizes: Annotated[tuple[Size, ...], Field(min_length=1)] = ("all",)
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    seeds: Count = 1
    train_on: Literal["sanitized", "original"] = "sanitized"
    positive: str | None = None
    folds: Annotated[int, Field(ge=2, strict=True)] | None = None
    precision: Annotated[float, Field(gt=0, lt=1, strict=True)] | None = None
    replacement: Annotated[bool, Field(strict=True)] = False
    predict: tuple[Annotated[str, StringConstraints(pattern=_TARGET)], ...] = ()
    predict_scores: bool = False

    @model_serializer(mode="wrap")
    def _leave_out_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        at_default = {key for key, default in self.later.items() if getattr(self, key) == default}
        return {key: value for key, value in dumped.items() if key not in at_default}

    @property
    def run_settings(self) -> dict[str, Any]:
        """The settings that the fitted model and its scores depend on."""
        return self.model_dump(mode="json", exclude_none=True, exclude=set(_PREDICT_KEYS))

    @property
    def predicted_roles(self) -> dict[str, tuple[str, ...]]:
        """The roles to predict of each split to predict; an empty tuple means all roles."""
        found: dict[str, tuple[str, ...]] = {}
        for target in self.predict:
            split, _, role = target.partition("/")
            found[split] = (*found.get(split, ()), *([role] if role else []))
        whole = {target for target in self.predict if "/" not in target}
        return {
            split: () if split in whole else tuple(r for r in ROLES if r in roles) for split, roles in found.items()
        }

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """List the settings that are only for this model."""
        return tuple(name for name in cls.model_fields if name not in BaselinePart.model_fields)

    @model_validator(mode="before")
    @classmethod
    def _refuse_settings_of_other_models(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic passes any value
        wrong = [name for name in ALL_SETTINGS if name not in cls.settings() and name in values]
        if wrong:
            listed = ", ".join(cls.settings()) or "none"
            raise ValueError(
                f"'{values['model']}' has no setting {', '.join(map(repr, wrong))}; its settings: {listed}"
            )
        return values

    @model_validator(mode="after")
    def _check_positive(self) -> Self:
        if self.binary and self.positive is None:
            raise ValueError(f"'{self.model}' separates one class from all others: name it, as in positive = \"5\"")
        if self.precision is not None and self.positive is None:
            raise ValueError('precision is for one class: name it, as in positive = "5"')
        if self.replacement and self.folds is not None:
            raise ValueError("folds and replacement exclude one another: copies of an image would be in several folds")
        if self.predict_scores and not self.predict:
            raise ValueError('predict_scores needs predict, the splits to predict, as in predict = ["submission"]')
        return self


class LogisticPart(BaselinePart):
    """Multinomial logistic regression.

    Attributes:
        c: inverse strength of regularisation.
        max_iter: iterations at most.
    """

    model: Literal["logistic"]
    c: Positive = 1.0
    max_iter: Count = 100


class EpochsPart(BaselinePart):
    """The settings of models that are trained by epochs.

    Attributes:
        epochs: passes over the training images at most.
        batch_size: images per step.
        learning_rate: size of a step.
        patience: stop after this number of epochs without a better accuracy on the valid role, and keep the best
            epoch. Without it all epochs run, and the last is kept.
    """

    epochs: Count
    batch_size: Count
    learning_rate: Positive
    patience: Count | None = None


class SoftmaxSgdPart(EpochsPart):
    """Softmax regression by stochastic gradient descent."""

    model: Literal["softmax-sgd"]
    epochs: Count = 20
    batch_size: Count = 128
    learning_rate: Positive = 0.1


class SgdBinaryPart(BaselinePart):
    """A linear support vector machine for one class, by stochastic gradient descent.

    Attributes:
        alpha: strength of regularisation.
        max_iter: passes over the training images at most.
    """

    binary = True

    model: Literal["sgd-binary"]
    alpha: Positive = 0.0001
    max_iter: Count = 1000


class NeverPart(BaselinePart):
    """Predicts that no image is of the class."""

    binary = True
    dummy = True

    model: Literal["never"]


class SvmLinearPart(BaselinePart):
    """A linear support vector machine for every pair of classes.

    Attributes:
        c: inverse strength of regularisation. Without it, it is searched.
        candidates: number of values of c that the search tries.
        search_size: training images that the search uses.
        c_values: the values of c that the search draws from, each at most once.
        c_range: the lowest and the highest value of c, if `c_values` is not given. The search draws values between
            them, uniformly in their logarithm. The default is 2^-7 to 2^6.
        break_ties: whether larger margins decide between classes with equal votes; if not, the first class is taken, as
            libsvm does.
    """

    later = {**BaselinePart.later, "c_values": None, "c_range": None, "break_ties": True}  # noqa: RUF012 - not changed

    model: Literal["svm-linear"]
    c: Positive | None = None
    candidates: Count | None = 20
    search_size: Size | None = 2_000
    c_values: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    c_range: tuple[Positive, Positive] | None = None
    break_ties: Annotated[bool, Field(strict=True)] = True

    @model_validator(mode="before")
    @classmethod
    def _search_or_take_c(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic passes any value
        if values.get("c") is None:
            return values
        search = ("candidates", "search_size", "c_values", "c_range")
        given = [name for name in search if values.get(name) is not None]
        if given:
            raise ValueError(f"c is given, so it is not searched: take {' and '.join(given)} out, or c")
        return {**values, **dict.fromkeys(search)}

    @model_validator(mode="after")
    def _check_search(self) -> Self:
        if self.c_values is not None and self.c_range is not None:
            raise ValueError("c_values and c_range exclude one another: take one out")
        if self.c_range is not None and self.c_range[0] >= self.c_range[1]:
            raise ValueError(f"c_range = {list(self.c_range)} is empty: write the lowest value first, then the highest")
        return self


class DensePart(EpochsPart):
    """A network with one hidden layer.

    Attributes:
        hidden: units of the hidden layer.
    """

    model: Literal["dense"]
    epochs: Count = 30
    batch_size: Count = 512
    learning_rate: Positive = 0.001
    hidden: Count = 400


class LenetPart(EpochsPart):
    """LeNet-5.

    Attributes:
        padding: border of gray pixels around the image, 0 to 4. With 2, images of 28 x 28 become the 32 x 32 of the
            paper.
    """

    later = {**BaselinePart.later, "padding": 2}  # noqa: RUF012 - not changed

    model: Literal["lenet"]
    epochs: Count = 8
    batch_size: Count = 128
    learning_rate: Positive = 0.001
    padding: Annotated[int, Field(ge=0, le=4, strict=True)] = 2


Baseline = Annotated[
    LogisticPart | SoftmaxSgdPart | SgdBinaryPart | NeverPart | SvmLinearPart | DensePart | LenetPart,
    Field(discriminator="model"),
]

_PARTS: tuple[type[BaselinePart], ...] = get_args(get_args(Baseline)[0])
# The part of each model, by its name.
PARTS: dict[str, type[BaselinePart]] = {get_args(part.model_fields["model"].annotation)[0]: part for part in _PARTS}
ALL_SETTINGS = tuple(dict.fromkeys(name for part in _PARTS for name in part.settings()))


def parse_baseline(values: Mapping[str, Any]) -> BaselinePart:
    """Check one `[[baseline]]`, such as the dump of a part that is stored with its scores.

    Raises:
        KeyError: it names no model, or one that does not exist.
        ValidationError: a setting is wrong.
    """
    return PARTS[values["model"]].model_validate(values)


def dump_for_digest(part: BaselinePart) -> dict[str, Any]:
    """Dump a part for the recipe's digest.

    Settings of other models are null there: earlier versions had one table of settings for all models, and digests of
    equal recipes stay equal. Keys that came later count only if they are set.
    """
    first = (name for name in ALL_SETTINGS if not any(name in one.later for one in _PARTS))
    return {**dict.fromkeys(first), **part.model_dump(mode="json", by_alias=True)}
