"""What every part of a recipe is made of."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

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
