"""If clusters are stars, no pair links kept rows of two roles either."""

import polars as pl
from examples import few
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedup.components import link
from pipeline.recipe import ROLES, SplitPart
from pipeline.splits.sanitize import pair_drops, sanitize

ROWS = st.lists(st.tuples(st.sampled_from(ROLES), st.booleans()), min_size=2, max_size=14)
LINKS = st.sets(st.tuples(st.integers(0, 13), st.integers(0, 13)).filter(lambda pair: pair[0] < pair[1]))


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def made(rows: list[tuple[str, bool]], links: set[tuple[int, int]], keep: list[str]) -> pl.DataFrame:
    spec = SplitPart.model_validate(
        {"name": "m", "keep": keep, "sanitize": "r", "protected": ["safe"], "train": {"from": "t"}}
    )
    drawn = pl.DataFrame(
        [
            {"role": role, "rank": at, "image_id": name(at), "label_index": 0, "label": "A", "dataset": "safe" * safe}
            for at, (role, safe) in enumerate(rows)
        ]
    ).with_columns(split=pl.lit("t"))
    inside = [(name(a), name(b)) for a, b in sorted(links) if b < len(rows)]
    pairs = pl.DataFrame(inside, schema={"left_id": pl.Binary, "right_id": pl.Binary}, orient="row")
    clusters = link(pairs, "stars")
    return sanitize(spec, drawn, {"r": clusters}, {"r": pairs}).with_columns(safe=drawn["dataset"] == "safe")


@few(40)
@given(ROWS, LINKS, st.permutations(ROLES))
def test_no_pair_is_left_in_two_roles_but_of_protected_rows(
    rows: list[tuple[str, bool]], links: set[tuple[int, int]], keep: list[str]
) -> None:
    state = {row["image_id"]: row for row in made(rows, links, keep).to_dicts()}
    for a, b in ((name(a), name(b)) for a, b in links if b < len(rows)):
        if state[a]["kept"] and state[b]["kept"] and state[a]["role"] != state[b]["role"]:
            assert state[a]["safe"]
            assert state[b]["safe"]
    for row in state.values():
        assert row["kept"] or not row["safe"]
        assert row["kept"] == (row["dropped_for"] is None) == (row["reason"] is None)


def test_a_chain_of_roles_drops_no_more_rows_than_needed() -> None:
    kept = pl.DataFrame(
        {"image_id": [name(0), name(1), name(2)], "role": list(ROLES), "rank": [0, 0, 0], "protected": [False] * 3}
    )
    pairs = pl.DataFrame({"left_id": [name(0), name(1)], "right_id": [name(1), name(2)]})
    spec = SplitPart.model_validate({"name": "m", "train": {"from": "t"}})
    # The middle row is dropped for the first; without it nothing conflicts with the last.
    assert pair_drops(spec, kept, pairs).rows() == [(name(1), name(0), "overlap")]
