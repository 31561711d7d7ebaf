"""`[[split]]`: which images are drawn into which role, and how overlap between the roles is removed."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.recipe.parts import ROLES, Name, Part, RoleName, Size, Words


class RolePart(Part):
    """One role of a split: which images it draws from, and how many. Classes get equal numbers as far as possible.

    Attributes:
        source_split: `from`: the split of the sources to draw from.
        size: number of images, or "all".
        share: fraction of the images, 0 to 1, instead of `size`; only for a split with `groups`.
    """

    source_split: Annotated[str, Field(alias="from")]
    size: Size = "all"
    share: Annotated[float, Field(gt=0, lt=1)] | None = None


class SplitPart(Part):
    """`[[split]]`: the roles train, valid and test, and how overlap between them is removed or prevented.

    Attributes:
        name: of the split.
        seed: of every draw.
        groups: rules whose clusters stay together: each cluster is drawn into one role, so the split cannot leak.
        sanitize: rules that remove rows: rows of a cluster that is in several roles are dropped. Each rule here and in
            `groups` is one of dedup.rules, or has a stricter threshold than one of them.
        keep: order of the roles: of a cluster in several roles, the first keeps its rows.
        protected: datasets that never lose a row.
        within: which rows of a cluster its role keeps: all, the first, or none.
        conflicts: which rows of a cluster with several labels to keep: all ("keep"), none ("drop"), those with the
            label of the majority, or those with the label of the most trusted source.
        trusted: datasets or dataset/split, the most trusted first.
        train: the train role.
        valid: the validation role.
        test: the test role.
    """

    name: Name
    seed: int = 0
    groups: Words = ()
    sanitize: Words = ()
    keep: tuple[RoleName, ...] = ROLES
    protected: Words = ()
    within: Literal["all", "first", "none"] = "all"
    conflicts: Literal["keep", "drop", "majority", "trusted"] = "keep"
    trusted: Words = ()
    train: RolePart | None = None
    valid: RolePart | None = None
    test: RolePart | None = None

    @property
    def roles(self) -> dict[str, RolePart]:
        """The roles of the recipe, in the order train, valid, test."""
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {role: part for role, part in named.items() if part is not None}

    @model_validator(mode="before")
    @classmethod
    def _read_old_name(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic passes any value
        """Accept "keep", the name of `within = "all"` until version 0.2."""
        if isinstance(value, dict) and value.get("within") == "keep":
            return {**value, "within": "all"}
        return value

    @model_validator(mode="after")
    def _check_keep(self) -> Self:
        if not self.roles:
            raise ValueError("has no role: give it train, valid or test")
        missing = [role for role in self.roles if role not in self.keep]
        if missing or len(set(self.keep)) != len(self.keep):
            raise ValueError(f"keep must name every role once; it {f'misses {missing}' if missing else 'repeats one'}")
        return self

    @model_validator(mode="after")
    def _check_shares_and_conflicts(self) -> Self:
        for role, part in self.roles.items():
            if part.share is not None and not self.groups:
                raise ValueError(f"{role}.share needs groups: without them give {role}.size")
            if part.share is not None and part.size != "all":
                raise ValueError(f"{role} has both a size and a share; give one")
        if (self.conflicts == "trusted") != bool(self.trusted):
            raise ValueError('conflicts = "trusted" and the list `trusted` need one another')
        return self
