"""Numbers stand for the ids of images, in the same order."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.splits.numbered import NumberedImages

# Many share their first eight bytes.
IDS = st.binary(min_size=1, max_size=1).map(lambda last: b"\xff" * 8 + b"\0" * 7 + last) | st.binary(
    min_size=16, max_size=16
)


def numbered(ids: list[bytes]) -> NumberedImages:
    few = {name: pl.Series(name, ["a"] * len(ids), dtype=pl.Categorical) for name in ("label", "dataset", "split")}
    return NumberedImages(pl.DataFrame({"image_id": pl.Series(ids, dtype=pl.Binary), **few}))


@given(st.lists(IDS, unique=True, max_size=30))
def test_numbers_are_the_positions_of_sorted_ids(ids: list[bytes]) -> None:
    images = numbered(ids)
    assert images.rows["image_id"].to_list() == list(range(len(ids)))
    assert [ids[position] for position in images.order.tolist()] == sorted(ids)


@given(st.lists(IDS, unique=True, min_size=1, max_size=30), st.lists(st.tuples(IDS, IDS), max_size=5), st.data())
def test_ids_become_numbers_and_numbers_ids(
    ids: list[bytes], others: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    images, one = numbered(ids), st.sampled_from(ids)
    pairs = data.draw(st.lists(st.tuples(one, one), max_size=20)) + others
    frame = pl.DataFrame(pairs, {"left": pl.Binary, "right": pl.Binary}, orient="row")
    found = images.with_numbers(frame, ["left", "right"])
    known = [pair for pair in pairs if set(pair) <= set(ids)]
    assert found.rows() == [tuple(sorted(ids).index(name) for name in pair) for pair in known]
    assert images.with_ids(found, ["left", "right"]).rows() == known


@given(st.lists(IDS, unique=True, min_size=1, max_size=30), st.data())
def test_a_missing_number_is_a_missing_id(ids: list[bytes], data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.none() | st.integers(0, len(ids) - 1), max_size=20))
    frame = pl.DataFrame({"keeper": pl.Series(numbers, dtype=pl.UInt32)})
    found = numbered(ids).with_ids(frame, ["keeper"])["keeper"].to_list()
    assert found == [None if number is None else sorted(ids)[number] for number in numbers]
