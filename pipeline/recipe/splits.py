"""`[[split]]`: who is drawn into which role, and how overlap between the roles is removed."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.recipe.parts import ROLES, Name, Part, RoleName, Size, Words


class RolePart(Part):
    """One role of a split: which images it may take and how many, shared out evenly over the classes.

    `share` instead of `size` asks for a part of the images there are, 0 to 1; only a split with `groups` takes it.
    """

    source_split: Annotated[str, Field(alias="from")]
    size: Size = "all"
    share: Annotated[float, Field(gt=0, lt=1)] | None = None


class SplitPart(Part):
    """`[[split]]`: train, valid and test, and how overlap between them is removed or never arises.

    Attributes:
        name: of the split.
        seed: of every draw.
        groups: rules whose clusters stay together: each goes to one role as a whole, and the split cannot leak.
        sanitize: rules that rows are dropped by. Each, as those of `groups`, is one of dedup.rules or has a stricter
            threshold than one of them.
        keep: where a cluster is in several roles, the first of these keeps it.
        protected: datasets that never lose a row.
        within: of a cluster's rows in the role that keeps it, keep all, the first, or none.
        conflicts: of a cluster with several labels, keep all rows, drop all, keep those with the label of the majority,
            or those with the label of the most trusted source.
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
        """The roles that the recipe asks for, in the order train, valid, test."""
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {role: part for role, part in named.items() if part is not None}

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_spelled(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands in whatever was written
        """Read "keep", the name that `within = "all"` had until version 0.2."""
        if isinstance(value, dict) and value.get("within") == "keep":
            return {**value, "within": "all"}
        return value

    @model_validator(mode="after")
    def _keeps_every_role(self) -> Self:
        if not self.roles:
            raise ValueError("has no role: give it train, valid or test")
        missing = [role for role in self.roles if role not in self.keep]
        if missing or len(set(self.keep)) != len(self.keep):
            raise ValueError(f"keep must name every role once; it {f'misses {missing}' if missing else 'repeats one'}")
        return self

    @model_validator(mode="after")
    def _asks_for_what_can_be(self) -> Self:
        for role, part in self.roles.items():
            if part.share is not None and not self.groups:
                raise ValueError(f"{role}.share needs groups: without them give {role}.size")
            if part.share is not None and part.size != "all":
                raise ValueError(f"{role} has both a size and a share; give one")
        if (self.conflicts == "trusted") != bool(self.trusted):
            raise ValueError('conflicts = "trusted" and the list `trusted` need one another')
        return self
