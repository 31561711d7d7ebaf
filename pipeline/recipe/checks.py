"""`[[check]]`: what a release must satisfy. One key chooses what is checked, such as `overlap` or `accuracy`.

`pipeline.checks` measures them. A build does not: a check changes no result.
"""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from pipeline.recipe.issues import KINDS
from pipeline.recipe.parts import Count, Name, Part, RoleName

Limit = Annotated[int, Field(ge=0, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]


def _count_or_share(value: object) -> object:
    if (type(value) is int and value >= 0) or (type(value) is float and 0 <= value <= 1):
        return value
    raise ValueError(f"{value!r} is neither a whole number of 0 or more nor a share from 0.0 to 1.0")


CountOrShare = Annotated[int | float, BeforeValidator(_count_or_share)]


class CheckPart(Part):
    """The base of all checks.

    Attributes:
        kind: the key that chooses the check.
    """

    kind: ClassVar[str]

    @property
    def title(self) -> str:
        """What is checked, in words, without the limit."""
        raise NotImplementedError

    @property
    def limit(self) -> float:
        """The value of the key that chooses the check."""
        value: float = getattr(self, self.kind)
        return value

    @model_validator(mode="before")
    @classmethod
    def _refuse_keys_of_other_checks(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic passes any value
        others = [key for key in values if key in PARTS and key != cls.kind]
        if others:
            raise ValueError(f"{cls.kind} and {others[0]} are two checks: write a [[check]] for each")
        wrong = [key for key in values if key in _KEYS and key not in cls.model_fields]
        if wrong:
            listed = ", ".join(cls.model_fields)
            raise ValueError(f"a check of {cls.kind} has no key {wrong[0]}; its keys: {listed}")
        return values


class OverlapPart(CheckPart):
    """No leak: images of a role that are duplicates of images of another role.

    Attributes:
        split: the split whose roles are compared.
        rule: the rule that finds duplicates, or a stricter one than a stored rule. "attr:NAME" compares the values of
            an attribute instead, such as "attr:patient".
        overlap: the largest number of images that share a cluster, or a value of the attribute, with an image of
            another role.
        sanitized: only images that sanitizing kept count; false for all images of the roles.
    """

    kind = "overlap"
    split: Name
    rule: str
    overlap: Limit = 0
    sanitized: Annotated[bool, Field(strict=True)] = True

    @property
    def title(self) -> str:
        return f"images in several roles of {self.split}{'' if self.sanitized else ' before sanitizing'} by {self.rule}"


class ConflictsPart(CheckPart):
    """Label conflicts: duplicates with different labels.

    Attributes:
        rule: the rule that finds duplicates, or a stricter one than a stored rule.
        conflicts: the largest number of clusters of the rule with images of several labels.
        split: only images that this split keeps. By default all images.
    """

    kind = "conflicts"
    rule: str
    conflicts: Limit
    split: Name | None = None

    @property
    def title(self) -> str:
        return f"clusters of {self.rule} with several labels{_of(self.split)}"


class RejectsPart(CheckPart):
    """Files that could not be decoded.

    Attributes:
        rejects: the largest number of rejects.
        reason: only rejects of this reason, such as "truncated". By default all rejects.
    """

    kind = "rejects"
    rejects: Limit
    reason: str | None = None

    @property
    def title(self) -> str:
        return f"rejects{f' with reason {self.reason}' if self.reason else ''}"


class ClassesPart(CheckPart):
    """Enough images of every class.

    Attributes:
        min_per_class: the smallest number of images of every class; with a split, in every role, of the images that
            sanitizing kept.
        split: the split. By default all images of the lake count.
        role: only this role of the split.
    """

    kind = "min_per_class"
    min_per_class: Count
    split: Name | None = None
    role: RoleName | None = None

    @property
    def title(self) -> str:
        return f"images of a class{_of(self.split)}{f'/{self.role}' if self.role else ''}"

    @model_validator(mode="after")
    def _check_role(self) -> Self:
        if self.role is not None and self.split is None:
            raise ValueError(f'role = "{self.role}" needs the split that has the role')
        return self


class DriftPart(CheckPart):
    """Class drift: how far the shares of the classes differ.

    Attributes:
        drift: the largest difference of the shares of a class, from 0 to 1: 0.05 allows 10 % in train, 15 % in test.
        split: the split. Only images that sanitizing kept count. By default all images of the lake.
        against: "roles" compares the roles of the split with one another, "previous" compares every role with the same
            role in the release before.
    """

    kind = "drift"
    drift: Share
    split: Name | None = None
    against: Literal["roles", "previous"] = "roles"

    @property
    def title(self) -> str:
        if self.against == "roles":
            return f"class drift between the roles of {self.split}"
        return f"class drift{_of(self.split)} since the release before"

    @model_validator(mode="after")
    def _check_split(self) -> Self:
        if self.split is None and self.against == "roles":
            raise ValueError('drift needs the split whose roles are compared, or against = "previous"')
        return self


class AccuracyPart(CheckPart):
    """Accuracy of a baseline on the sanitized test role, trained on the largest train size; the mean of all seeds.

    Attributes:
        accuracy: the lowest accuracy, from 0 to 1.
        split: the split of the `[[baseline]]`.
        model: the model of the `[[baseline]]`. If several have this model and split, every one must reach the accuracy.
    """

    kind = "accuracy"
    accuracy: Share
    split: Name
    model: str

    @property
    def title(self) -> str:
        return f"accuracy of {self.model} on {self.split}"


class DisagreementsPart(CheckPart):
    """Pictures and pairs about which people disagree.

    Attributes:
        disagreements: the largest number of pictures and pairs with different newest verdicts of two people. Those who
            are not sure do not count.
    """

    kind = "disagreements"
    disagreements: Limit

    @property
    def title(self) -> str:
        return "pictures and pairs about which people disagree"


class IssuesCheckPart(CheckPart):
    """Images that `[issues]` lists.

    Attributes:
        issues: the largest number of images, as a whole number; or their largest share, as a number from 0 to 1 with a
            point, such as 0.01.
        issue: only images with this kind of issue, such as "blurry". By default images with any.
        split: only images that this split keeps. By default all images.
    """

    kind = "issues"
    issues: CountOrShare
    issue: str | None = None
    split: Name | None = None

    @property
    def title(self) -> str:
        share = "share of " if isinstance(self.issues, float) else ""
        return f"{share}images with {f'issue {self.issue}' if self.issue else 'issues'}{_of(self.split)}"

    @model_validator(mode="after")
    def _check_issue(self) -> Self:
        if self.issue is not None and self.issue not in KINDS:
            near = difflib.get_close_matches(self.issue, KINDS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"kinds: {', '.join(KINDS)}"
            raise ValueError(f'issue = "{self.issue}" is no kind of issue; {hint}')
        return self


def _of(split: str | None) -> str:
    return f" in {split}" if split else ""


def _chosen(values: object) -> str | None:
    """Return the key that chooses the check; the nearest one if a key is misspelt; None without any."""
    if isinstance(values, CheckPart):
        return values.kind
    if not isinstance(values, Mapping):
        return None
    given = [key for key in PARTS if key in values]
    near = [
        name for key in values if key not in _KEYS for name in difflib.get_close_matches(str(key), PARTS, 1, cutoff=0.6)
    ]
    return next(iter([*given, *near]), OverlapPart.kind if "rule" in values else None)


Check = Annotated[
    Annotated[OverlapPart, Tag("overlap")]
    | Annotated[ConflictsPart, Tag("conflicts")]
    | Annotated[RejectsPart, Tag("rejects")]
    | Annotated[ClassesPart, Tag("min_per_class")]
    | Annotated[DriftPart, Tag("drift")]
    | Annotated[AccuracyPart, Tag("accuracy")]
    | Annotated[DisagreementsPart, Tag("disagreements")]
    | Annotated[IssuesCheckPart, Tag("issues")],
    Discriminator(
        _chosen,
        custom_error_type="nothing_to_check",
        custom_error_message="nothing to check: give overlap, conflicts, rejects, min_per_class, drift, accuracy, "
        "disagreements or issues",
    ),
]

# The part of each check, by the key that chooses it.
PARTS: dict[str, type[CheckPart]] = {
    part.kind: part for part in (get_args(member)[0] for member in get_args(get_args(Check)[0]))
}
_KEYS = {key for part in PARTS.values() for key in part.model_fields}
