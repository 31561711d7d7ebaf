"""Turn pydantic's validation errors into one-line messages in the terms of the recipe: where, what, what to write."""

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


def describe_errors(error: ValidationError, model: type[BaseModel]) -> str:
    """Describe every error of a validation, in one line.

    Args:
        error: raised by pydantic.
        model: the model that was validated; it has the names of the known keys.

    Returns:
        The errors with their locations, separated by semicolons.
    """
    errors = error.errors()
    # A list whose items have errors is also reported as too short, which adds nothing.
    inner = {other["loc"][: len(short["loc"])] for short in errors for other in errors if other is not short}
    shown = (one for one in errors if not (one["type"] == "too_short" and one["loc"] in inner))
    return "; ".join(_describe(one, model) for one in shown)


def _describe(error: ErrorDetails, model: type[BaseModel]) -> str:
    kind, (loc, models) = error["type"], _resolve(error["loc"], model)
    where = _format(loc)
    if kind == "extra_forbidden":
        return f"unknown key {where}; {_nearest_or_all(str(loc[-1]), _known_keys(models), 'known keys')}"
    if kind == "union_tag_not_found":
        return f"{_format((*loc, _discriminator(error)))}: field required"
    if kind == "union_tag_invalid":
        found, known = str(error["ctx"]["tag"]), error["ctx"]["expected_tags"].replace("'", "").split(", ")
        name = _discriminator(error)
        return f"{_format((*loc, name))}: no {name} '{found}'; {_nearest_or_all(found, known, f'known {name}s')}"
    if kind == "tuple_type":
        table = isinstance(error["input"], dict)
        return f"{where}: write [[{where}]], with two brackets" if table else f"{where}: write a list, in brackets"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}" if where else message


def _nearest_or_all(found: str, known: list[str], title: str) -> str:
    near = difflib.get_close_matches(found, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"{title}: {', '.join(known)}"


def _discriminator(error: ErrorDetails) -> str:
    return str(error["ctx"]["discriminator"]).strip("'")


def _format(loc: tuple[int | str, ...]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc]
    return "".join(parts).removeprefix(".")


def _resolve(
    loc: tuple[int | str, ...], root: type[BaseModel]
) -> tuple[tuple[int | str, ...], tuple[type[BaseModel], ...]]:
    """Follow an error's location through the models.

    Returns:
        The location in the recipe, without the tags that pydantic inserts for the members of a union; and the models
        that the last key of the location belongs to. They are several only if the union has no member with the tag.
    """
    location: list[int | str] = []
    holders: tuple[type[BaseModel], ...] = (root,)
    models = holders
    for part in loc:
        if len(models) > 1 and isinstance(part, str):
            models = tuple(model for model in models if part in _tags(model)) or models
            continue
        location.append(part)
        holders = models
        if isinstance(part, str):
            fields = [f for model in models for name, f in model.model_fields.items() if part in (name, f.alias)]
            models = tuple(_models_in(fields[0].annotation)) if fields else ()
    return tuple(location), holders


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    return tuple(value for field in model.model_fields.values() for value in get_args(field.annotation))


def _known_keys(models: tuple[type[BaseModel], ...]) -> list[str]:
    return sorted({f.alias or n for model in models for n, f in model.model_fields.items() if not f.exclude})


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - a typing construct
    """List the models in a type such as `tuple[SourcePart, ...]` or a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
