"""Laws 4 and 8, over random splits and clusters of several rules."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.recipe import ROLES, SplitPart
from pipeline.splits.sanitize import sanitize

# One row an image: its role and its cluster under each of two rules (0 is no cluster).
ROWS = st.lists(st.tuples(st.sampled_from(ROLES), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)
SPECS = st.builds(
    lambda keep, within, rules: SplitPart.model_validate(
        {"name": "m", "keep": keep, "within": within, "sanitize": rules, "train": {"from": "t"}}
    ),
    st.permutations(ROLES),
    st.sampled_from(["all", "first"]),
    st.lists(st.sampled_from(["exact", "sign"]), unique=True, min_size=1),
)
Rows = list[tuple[str, int, int]]


def name(i: int) -> bytes:
    return i.to_bytes(16, "big")


def apply(spec: SplitPart, rows: Rows) -> tuple[pl.DataFrame, dict[str, dict[bytes, int]]]:
    frame = pl.DataFrame(
        {
            "role": [row[0] for row in rows],
            "rank": [sum(r[0] == row[0] for r in rows[:i]) for i, row in enumerate(rows)],
            "image_id": [name(i) for i in range(len(rows))],
            "label": "A",
            "label_index": 0,
        }
    )
    clusters = {
        "exact": {name(i): row[1] for i, row in enumerate(rows) if row[1]},
        "sign": {name(i): row[2] for i, row in enumerate(rows) if row[2]},
    }
    tables = {
        rule: pl.DataFrame(
            {"image_id": list(by), "cluster_id": list(by.values())},
            schema={"image_id": pl.Binary, "cluster_id": pl.Int64},
        )
        for rule, by in clusters.items()
    }
    return sanitize(spec, frame, tables), clusters


@given(SPECS, ROWS)
def test_no_cluster_has_kept_rows_in_two_roles(spec: SplitPart, rows: Rows) -> None:
    result, clusters = apply(spec, rows)
    kept = result.filter("kept")
    for rule in spec.sanitize:
        roles: dict[int, list[str]] = {}
        for role, image in kept.select("role", "image_id").rows():
            if image in clusters[rule]:
                roles.setdefault(clusters[rule][image], []).append(role)
        assert all(len(set(found)) == 1 for found in roles.values())
        if spec.within == "first":
            assert all(len(found) == 1 for found in roles.values())


@given(SPECS, ROWS)
def test_every_dropped_row_names_a_rule_and_an_image_of_its_cluster(spec: SplitPart, rows: Rows) -> None:
    result, clusters = apply(spec, rows)
    assert result["image_id"].to_list() == [name(i) for i in range(len(rows))]
    for row in result.iter_rows(named=True):
        if row["kept"]:
            assert row["dropped_by"] is None
            assert row["dropped_for"] is None
        else:
            members = clusters[row["dropped_by"]]
            assert members[row["image_id"]] == members[row["dropped_for"]]
            assert row["dropped_for"] != row["image_id"]


@given(SPECS, ROWS)
def test_the_first_role_to_keep_loses_nothing_to_others(spec: SplitPart, rows: Rows) -> None:
    result, _ = apply(spec, rows)
    if spec.within == "all":
        assert result.filter(role=spec.keep[0])["kept"].all()


@given(SPECS, ROWS)
def test_nothing_is_dropped_without_need(spec: SplitPart, rows: Rows) -> None:
    """Of every cluster of the first rule, the role that keeps it keeps all of it (or its first row)."""
    single = spec.model_copy(update={"sanitize": spec.sanitize[:1]})
    result, clusters = apply(single, rows)
    members = clusters[spec.sanitize[0]]
    for cluster in set(members.values()):
        inside = result.filter(pl.col("image_id").is_in([image for image, c in members.items() if c == cluster]))
        keeper = min(inside["role"], key=spec.keep.index)
        kept = inside.filter("kept")
        assert kept["role"].unique().to_list() == [keeper]
        assert len(kept) == (len(inside.filter(role=keeper)) if spec.within == "all" else 1)


def test_without_a_rule_everything_is_kept() -> None:
    spec = SplitPart.model_validate({"name": "m", "train": {"from": "t"}})
    result, _ = apply(spec, [("train", 1, 1), ("test", 1, 1)])
    assert result["kept"].all()
