"""Laws 4 and 8, and what every policy says, over random splits and clusters of several rules.

The policies are written here a second time, row by row, as the docstrings say them: slow, and without a join.
"""

from collections import Counter
from typing import Any, NamedTuple

import polars as pl
from examples import few
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.recipe import ROLES, SplitPart
from pipeline.splits.sanitize import sanitize, straddling

DATASETS = ("a", "b", "c")


class Row(NamedTuple):
    """An image of a split, and its cluster under each rule: 0 is no cluster."""

    role: str
    exact: int
    sign: int
    label: str | None = "A"
    dataset: str = "a"
    split: str = "train"


class Drop(NamedTuple):
    rule: str
    keeper: int
    reason: str


def name(i: int) -> bytes:
    return i.to_bytes(16, "big")


def frame(rows: list[Row]) -> pl.DataFrame:
    """Lay rows out as `draw_roles` does; their ids and ranks follow their order."""
    return pl.DataFrame(
        {
            "role": [row.role for row in rows],
            "rank": [sum(r.role == row.role for r in rows[:i]) for i, row in enumerate(rows)],
            "image_id": [name(i) for i in range(len(rows))],
            "label": [row.label for row in rows],
            "label_index": 0,
            "dataset": [row.dataset for row in rows],
            "split": [row.split for row in rows],
        },
        schema_overrides={"label": pl.String, "label_index": pl.Int32},
    )


def tables(rows: list[Row]) -> dict[str, pl.DataFrame]:
    """Lay clusters out as the clusters table does."""
    return {
        rule: pl.DataFrame(
            [(name(i), getattr(row, rule)) for i, row in enumerate(rows) if getattr(row, rule)],
            schema={"image_id": pl.Binary, "cluster_id": pl.Int64},
            orient="row",
        )
        for rule in ("exact", "sign")
    }


def sanitized(spec: SplitPart, rows: list[Row]) -> dict[int, Drop]:
    """By row, why it went."""
    gone: dict[int, Drop] = {}
    for rule in spec.sanitize:
        for judge in (_conflicts, _overlaps):
            for cluster in sorted({getattr(row, rule) for row in rows} - {0}):
                members = [i for i, row in enumerate(rows) if getattr(row, rule) == cluster and i not in gone]
                members.sort(key=lambda i: (rows[i].dataset not in spec.protected, spec.keep.index(rows[i].role), i))
                found = judge(spec, rows, members)
                gone.update({i: Drop(rule, *why) for i, why in found.items() if rows[i].dataset not in spec.protected})
    return gone


def _conflicts(spec: SplitPart, rows: list[Row], members: list[int]) -> dict[int, tuple[int, str]]:
    said = [i for i in members if rows[i].label is not None]
    if spec.conflicts == "keep" or len({rows[i].label for i in said}) < 2:
        return {}
    stands = _stands(spec, rows, said)
    others = {i: [j for j in said if rows[j].label != rows[i].label] for i in said}
    if stands is None:
        return {i: (others[i][0], "conflict") for i in said}
    return {i: (next(j for j in said if rows[j].label == stands), "conflict") for i in said if rows[i].label != stands}


def _stands(spec: SplitPart, rows: list[Row], said: list[int]) -> str | None:
    if spec.conflicts == "drop":
        return None
    best = {rows[i].label for i in said if rows[i].dataset in spec.protected}
    if not best and spec.conflicts == "majority":
        votes = Counter(rows[i].label for i in said)
        best = {label for label, count in votes.items() if count == max(votes.values())}
    if not best and spec.conflicts == "trusted":
        for source in spec.trusted:
            best = best or {rows[i].label for i in said if source in {rows[i].dataset, "/".join(rows[i][4:])}}
    return best.pop() if len(best) == 1 else None


def _overlaps(spec: SplitPart, rows: list[Row], members: list[int]) -> dict[int, tuple[int, str]]:
    if not members:
        return {}
    first = members[0]
    home = rows[first].role
    rivals = [i for i in members if rows[i].dataset in spec.protected and rows[i].role != home]
    here = [i for i in members if rows[i].role == home]
    out = {i: (first, "overlap") for i in members if rows[i].role != home}
    if rivals:
        return {**out, **dict.fromkeys(here, (rivals[0], "overlap"))}
    if spec.within == "first":
        out.update(dict.fromkeys(here[1:], (first, "repeat")))
    if spec.within == "none" and len(here) > 1:
        out.update({i: (first if i != first else here[1], "repeat") for i in here})
    return out


ROWS = st.lists(
    st.builds(
        Row,
        st.sampled_from(ROLES),
        st.integers(0, 4),
        st.integers(0, 4),
        st.sampled_from(["A", "A", "A", "B", "C", None]),
        st.sampled_from(DATASETS),
        st.sampled_from(["train", "test"]),
    ),
    min_size=1,
    max_size=40,
)
SOURCES = st.sampled_from(["a", "b", "c", "a/train", "a/test", "b/test"])
POLICIES = st.one_of(
    st.sampled_from([{"conflicts": "keep"}, {"conflicts": "drop"}, {"conflicts": "majority"}]),
    st.lists(SOURCES, unique=True, min_size=1, max_size=3).map(lambda t: {"conflicts": "trusted", "trusted": t}),
)


def spec_of(**keys: Any) -> SplitPart:
    return SplitPart.model_validate({"name": "m", "train": {"from": "t"}, **keys})


SPECS = st.builds(
    lambda keep, within, rules, protected, policy: spec_of(
        keep=keep, within=within, sanitize=rules, protected=protected, **policy
    ),
    st.permutations(ROLES),
    st.sampled_from(["all", "first", "none"]),
    st.lists(st.sampled_from(["exact", "sign"]), unique=True, min_size=1),
    st.lists(st.sampled_from(DATASETS), unique=True, max_size=2),
    POLICIES,
)

# A source of another label comes between two sources of one label.
BETWEEN = spec_of(sanitize=["exact"], conflicts="trusted", trusted=["a", "b", "c"])


def apply(spec: SplitPart, rows: list[Row]) -> pl.DataFrame:
    return sanitize(spec, frame(rows), tables(rows))


def clusters_of(rows: list[Row], result: pl.DataFrame, rule: str) -> dict[int, list[int]]:
    """By cluster, the rows that were kept."""
    found: dict[int, list[int]] = {}
    for i, (row, kept) in enumerate(zip(rows, result["kept"], strict=True)):
        if kept and getattr(row, rule):
            found.setdefault(getattr(row, rule), []).append(i)
    return found


@few(60)
@given(SPECS, ROWS)
@example(BETWEEN, [Row("train", 1, 0, label, dataset) for label, dataset in ("Aa", "Bb", "Ac")])
def test_policies_do_what_their_docstrings_say(spec: SplitPart, rows: list[Row]) -> None:
    expected = sanitized(spec, rows)
    columns = ("kept", "dropped_by", "dropped_for", "reason")
    for i, found in enumerate(apply(spec, rows).select(columns).rows()):
        drop = expected.get(i)
        assert found == ((False, drop.rule, name(drop.keeper), drop.reason) if drop else (True, None, None, None))


@few(25)
@given(SPECS, ROWS)
def test_law_4_no_cluster_has_kept_rows_in_two_roles_but_protected_ones(spec: SplitPart, rows: list[Row]) -> None:
    result = apply(spec, rows)
    for rule in spec.sanitize:
        torn = 0
        for members in clusters_of(rows, result, rule).values():
            guarded = [i for i in members if rows[i].dataset in spec.protected]
            if len({rows[i].role for i in members}) > 1:
                torn += 1
                assert guarded == members
            labels = {rows[i].label for i in members} - {None}
            if spec.conflicts != "keep" and len(labels) > 1:
                assert len({rows[i].label for i in guarded} - {None}) > 1 or spec.conflicts == "drop"
            if spec.within != "all" and len(members) > 1:
                assert guarded
        listed = straddling(spec, frame(rows), result, tables(rows)).filter(rule=rule)
        assert listed["clusters"].sum() == torn
        assert set(listed.explode("datasets")["datasets"]) <= set(spec.protected)


@few(25)
@given(SPECS, ROWS)
def test_law_8_every_dropped_row_names_a_rule_an_image_of_its_cluster_and_a_reason(
    spec: SplitPart, rows: list[Row]
) -> None:
    result = apply(spec, rows)
    assert result["image_id"].to_list() == [name(i) for i in range(len(rows))]
    for i, row in enumerate(result.iter_rows(named=True)):
        if row["kept"]:
            continue
        keeper = rows[int.from_bytes(row["dropped_for"], "big")]
        assert getattr(keeper, row["dropped_by"]) == getattr(rows[i], row["dropped_by"]) > 0
        assert row["dropped_for"] != name(i)
        why = {
            "conflict": keeper.label != rows[i].label,
            "overlap": keeper.role != rows[i].role,
            "repeat": keeper.role == rows[i].role,
        }
        assert why[row["reason"]]


@few(25)
@given(SPECS, ROWS)
def test_protected_rows_are_never_dropped(spec: SplitPart, rows: list[Row]) -> None:
    kept = apply(spec, rows)["kept"]
    assert all(kept[i] for i, row in enumerate(rows) if row.dataset in spec.protected)


@few(25)
@given(SPECS, ROWS)
def test_sanitizing_what_is_kept_drops_nothing_more(spec: SplitPart, rows: list[Row]) -> None:
    drawn = frame(rows).filter(apply(spec, rows)["kept"])
    assert sanitize(spec, drawn, tables(rows))["kept"].all()


@few(25)
@given(SPECS, ROWS, st.integers(0, 2**32))
def test_the_order_of_rows_and_clusters_does_not_matter(spec: SplitPart, rows: list[Row], seed: int) -> None:
    shuffled = {rule: t.sample(fraction=1, shuffle=True, seed=seed) for rule, t in tables(rows).items()}
    result = sanitize(spec, frame(rows).sample(fraction=1, shuffle=True, seed=seed), shuffled)
    assert result.sort("image_id").equals(apply(spec, rows))


@few(25)
@given(SPECS, ROWS)
def test_the_first_role_to_keep_loses_nothing_to_others(spec: SplitPart, rows: list[Row]) -> None:
    result = apply(spec.model_copy(update={"protected": (), "conflicts": "keep"}), rows)
    lost = result.filter(role=spec.keep[0]).filter(~pl.col("kept"))
    assert set(lost["reason"]) <= {"repeat"}
