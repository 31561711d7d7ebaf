"""`[issues]`: which issues a build lists, and from which score on. A key is a kind of issue.

`KINDS` is the registry: its order is that of lists and reports, and its meanings are shown there.
"""

from collections.abc import Mapping
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer

from pipeline.recipe.parts import Part


class Kind(NamedTuple):
    """A kind of issue.

    Attributes:
        threshold: the score from which on an image is listed, if the recipe gives none.
        meaning: what is wrong with the image.
        is_default: whether an `[issues]` without this key lists it.
    """

    threshold: float
    meaning: str
    is_default: bool = True


KINDS = {
    "blank": Kind(0.995, "nearly all pixels have one gray level"),
    "low_information": Kind(0.9, "hardly any edges"),
    "dark": Kind(0.75, "even the brightest pixels are dark"),
    "bright": Kind(0.75, "even the darkest pixels are bright"),
    "low_contrast": Kind(0.8, "dark and bright pixels hardly differ"),
    "blurry": Kind(0.9, "no edge is sharp"),
    "border": Kind(0.15, "a border of one colour, wider than in other images of the dataset"),
    "odd_size": Kind(0.9, "many times larger or smaller than other images of its class"),
    "odd_aspect": Kind(0.6, "many times wider or taller than other images of its class"),
    "label": Kind(0.6, "a model that has not seen the image prefers another label", is_default=False),
    "outlier": Kind(0.45, "far from all other images of its class", is_default=False),
}
# Kinds that are found from measurements and sizes.
QUALITY = tuple(kind for kind, of in KINDS.items() if of.is_default)


def _threshold(value: object) -> object:
    """Read a threshold: 0 is no issue, so it cannot be one; true and false are kept."""
    if isinstance(value, bool) or (isinstance(value, int | float) and 0 < value <= 1):
        return value
    raise ValueError(f"{value!r} is neither true, false nor a score above 0 and at most 1")


def _without_sign(value: float | bool) -> float | bool:  # noqa: FBT001 - a value of TOML
    """Write 1 as 1.0, so that both are the same recipe."""
    return value if isinstance(value, bool) else float(value)


Threshold = Annotated[float | bool, BeforeValidator(_threshold), PlainSerializer(_without_sign)]


class IssuesPart(Part):
    """`[issues]`: list images that a person should look at, each with a score from 0 to 1, in the table `issues`.

    A key is a kind of issue. Its value is the score from which on an image is listed; `true` is the default score, and
    `false` leaves the kind out. All kinds but `label` and `outlier` are listed unless they are `false`.

    Attributes:
        blank: share of pixels within 3 gray levels of the median. Default 0.995. A blank image has no other issue of
            its pixels; with `false`, no image is blank.
        low_information: 1 if no place is an edge, 0 if 2 % of the places are: a change over four pixels by 1/8 of the
            contrast, and by 8 gray levels. Default 0.9.
        dark: 1 - p / 255, where 1 % of the pixels are brighter than gray level p. Default 0.75.
        bright: p / 255, where 1 % of the pixels are darker than p. Default 0.75.
        low_contrast: 1 - c, where c is the difference of these two levels as a part of the largest possible one with
            the same middle. Default 0.8.
        blurry: how gradually the steepest edges rise. 0 if they rise within one pixel, 1 if they take four or more;
            0 for an image without edges. Default 0.9, which a Gaussian blur of 1.3 pixels exceeds.
        border: share of the area that is a border of one colour, above the median of the dataset, as a part of what is
            possible above it. Default 0.15.
        odd_size: 1 - 1 / r, where the area is r times larger or smaller than the median of its class. Default 0.9: ten
            times.
        odd_aspect: the same for width / height. Default 0.6: 2.5 times.
        label: how much more a model prefers another label, trained on other images than the one that it judges: 0.5 if
            both are equally likely, 1 if it is sure. Not listed by default; `true` is 0.6.
        outlier: 1 - 1 / r, where the nearest images of the class are r times as far away as is usual in the class. Not
            listed by default; `true` is 0.45.
    """

    blank: Threshold = True
    low_information: Threshold = True
    dark: Threshold = True
    bright: Threshold = True
    low_contrast: Threshold = True
    blurry: Threshold = True
    border: Threshold = True
    odd_size: Threshold = True
    odd_aspect: Threshold = True
    label: Threshold = Field(default=False)
    outlier: Threshold = Field(default=False)

    @property
    def thresholds(self) -> Mapping[str, float]:
        """The kinds to list, in the order of `KINDS`, each with the score from which on an image is listed."""
        values = {kind: getattr(self, kind) for kind in KINDS}
        return {
            kind: KINDS[kind].threshold if value is True else float(value)
            for kind, value in values.items()
            if value is not False
        }
