"""Say what is wrong with a recipe in the words of the person who wrote it: where, what, and what was meant."""

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


def say_faults(error: ValidationError, model: type[BaseModel]) -> str:
    """Say every fault that a check found, in one line.

    Args:
        error: what pydantic found.
        model: the model it checked against, for the names of known keys.

    Returns:
        Faults with their places, separated by semicolons.
    """
    every = error.errors()
    # "Too short" of a list whose items have faults of their own says nothing.
    inner = {fault["loc"][: len(short["loc"])] for short in every for fault in every if fault is not short}
    return "; ".join(_say(f, model) for f in every if not (f["type"] == "too_short" and f["loc"] in inner))


def _say(fault: ErrorDetails, model: type[BaseModel]) -> str:
    where = _spell(fault["loc"])
    if fault["type"] == "extra_forbidden":
        key = str(fault["loc"][-1])
        near = difflib.get_close_matches(key, _known_keys(model, fault["loc"][:-1]), n=1, cutoff=0.5)
        hint = (
            f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(_known_keys(model, fault['loc'][:-1]))}"
        )
        return f"unknown key {where}; {hint}"
    if fault["type"] == "tuple_type":
        table = isinstance(fault["input"], dict)
        return f"{where}: write [[{where}]], with two brackets" if table else f"{where}: write a list, in brackets"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}" if where else message


def _spell(loc: tuple[int | str, ...]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc]
    return "".join(parts).removeprefix(".")


def _known_keys(whole: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    model: Any = whole
    for part in (part for part in loc if isinstance(part, str)):
        found = (
            [f for n, f in model.model_fields.items() if part in (n, f.alias)] if hasattr(model, "model_fields") else []
        )
        model = _model_in(found[0].annotation) if found else None
    return sorted(f.alias or n for n, f in model.model_fields.items() if not f.exclude) if model else []


def _model_in(annotation: Any) -> Any:  # noqa: ANN401 - a typing construct
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(part) for part in getattr(annotation, "__args__", ()))
    return next((part for part in inner if part is not None), None)
