"""Arguments of a wrong type: one sentence says what the argument is and what it must be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.arrays.npy_folder import open_npy
from pipeline.builder.build import build, plan
from pipeline.errors import ImagelakeError
from pipeline.lake_handle import Lake
from pipeline.recipe import read_recipe

NUMBER, TEXT, SWITCH, PLACE = "a whole number", "text", "True or False", "a path"
CALLS: dict[str, tuple[Callable[[Any], object], str]] = {
    "at text": (lambda lake: lake.at("1"), NUMBER),
    "at a fraction": (lambda lake: lake.at(1.5), NUMBER),
    "at True": (lambda lake: lake.at(True), NUMBER),  # noqa: FBT003 - the wrong type is the point
    "at None": (lambda lake: lake.at(None), NUMBER),
    "scan a number": (lambda lake: lake.scan(1), TEXT),
    "scan bytes": (lambda lake: lake.scan(b"images"), TEXT),
    "scan a list": (lambda lake: lake.scan(["images"]), TEXT),
    "sql of bytes": (lambda lake: lake.sql(b"select 1"), TEXT),
    "sql of None": (lambda lake: lake.sql(None), TEXT),
    "arrays of a number": (lambda lake: lake.arrays(3, "train"), TEXT),
    "arrays without a role": (lambda lake: lake.arrays("main", None), TEXT),
    "arrays of a list": (lambda lake: lake.arrays(["main"], "train"), TEXT),
    "sanitized": (lambda lake: lake.arrays("main", "train", sanitized="no"), SWITCH),
    "normalised": (lambda lake: lake.arrays("main", "train", normalised=5), SWITCH),
    "check": (lambda lake: lake.members("main", "train", check="x"), SWITCH),
    "class_names": (lambda lake: lake.class_names(None), TEXT),
    "check a number": (lambda lake: lake.check(3), TEXT),
    "batch_size": (lambda lake: lake.feed("main", "train", batch_size="x"), NUMBER),
    "drop_last": (lambda lake: lake.feed("main", "train", batch_size=4, drop_last="yes"), SWITCH),
    "epoch": (lambda lake: lake.batches("main", "train", batch_size=4, epoch="x"), NUMBER),
    "Lake of a number": (lambda _: Lake(5), PLACE),  # type: ignore[arg-type]
    "Lake of bytes": (lambda _: Lake(b"x"), PLACE),  # type: ignore[arg-type]
    "release of Lake": (lambda lake: Lake(lake.root, "1"), NUMBER),  # type: ignore[arg-type]
    "read_recipe": (lambda _: read_recipe(5), PLACE),  # type: ignore[arg-type]
    "open_npy": (lambda _: open_npy(None), PLACE),  # type: ignore[arg-type]
    "build": (lambda _: build("recipe.toml"), "a Recipe: use read_recipe"),  # type: ignore[arg-type]
    "plan": (lambda _: plan(None), "a Recipe: use read_recipe"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("call", "expected"), CALLS.values(), ids=CALLS)
def test_a_wrong_type_is_named_in_one_sentence(small_lake: Lake, call: Callable[[Any], object], expected: str) -> None:
    with pytest.raises(TypeError, match=rf"^\w+ is .*; it must be {expected}") as raised:
        call(small_lake)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda lake: lake.sql("select 1", ids="HEX"),
        lambda lake: lake.check("image"),
        lambda lake: lake.feed("main", "train", batch_size=0),
        lambda lake: lake.at(10**30),
        lambda _: Lake(""),
        lambda _: Lake("a\0b"),
    ],
)
def test_a_wrong_value_is_an_error_of_imagelake(small_lake: Lake, call: Callable[[Any], object]) -> None:
    with pytest.raises(ImagelakeError):
        call(small_lake)


def test_paths_and_numbers_of_numpy_are_accepted(small_lake: Lake) -> None:
    opened = Lake(Path(small_lake.root), np.int64(1))  # type: ignore[arg-type]
    assert (opened.release, type(opened.release)) == (1, int)
    assert opened.arrays("main", "train", sanitized=np.True_)[1].dtype == np.int64  # type: ignore[call-overload]
