"""Splits of whole groups: they never leak, and their sizes are close to what the recipe requests."""

from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from examples import few
from hypothesis import assume, example, given
from hypothesis import strategies as st
from making import with_identity

from pipeline.errors import SplitError
from pipeline.recipe import ROLES, SplitPart
from pipeline.splits.draw import quotas
from pipeline.splits.groups import Drawn, draw_groups
from pipeline.splits.sanitize import sanitize, straddling

RULES = ("exact", "sign")


class Image(NamedTuple):
    """An image, and its cluster under each rule: 0 is no cluster."""

    label: str | None = "A"
    split: str = "train"
    exact: int = 0
    sign: int = 0
    dataset: str = "a"


SINGLE = [Image(*of) for of in product("AB", ("train", "train", "test"), (0,), (0,), "aab")]
# Protected images of one group in two roles: all others of the group are dropped.
TORN = (
    {
        "keep": ["train", "valid", "test"],
        "protected": ["a"],
        "seed": 0,
        "train": {"from": "train"},
        "valid": {"from": "train", "share": 0.1},
        "test": {"from": "test"},
    },
    [Image(dataset="b", sign=1), Image(exact=1, sign=1), Image(split="test", exact=1), *SINGLE],
)
CLUSTERS = st.sampled_from([0] * 9 + list(range(1, 8)))
IMAGES = st.lists(
    st.builds(
        Image,
        st.sampled_from(["A", "A", "B", None]),
        st.sampled_from(["train", "train", "test"]),
        CLUSTERS,
        CLUSTERS,
        st.sampled_from(["a", "b"]),
    ),
    min_size=8,
    max_size=40,
).map(lambda found: found + SINGLE)
ASKS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.sampled_from([0.1, 0.25, 0.5, 0.8]).map(lambda share: {"share": share}),
    st.integers(2, 5).map(lambda size: {"size": size}),
    st.just({}),
)
SPECS = st.builds(
    lambda keep, protected, seed, roles: {"keep": keep, "protected": protected, "seed": seed, **roles},
    st.permutations(ROLES),
    st.sampled_from([[], ["a"], ["a", "b"]]),
    st.integers(0, 99),
    st.fixed_dictionaries(
        {
            role: st.builds(
                lambda source, ask: {"from": source, **ask},
                st.sampled_from(["train", "train", "test", "a/train"]),
                ASKS,
            )
            for role in ROLES
        }
    ),
)


@cache
def name(i: int) -> bytes:
    return np.random.default_rng(i).bytes(16)


def spec_of(**keys: Any) -> SplitPart:
    return SplitPart.model_validate({"name": "m", "groups": RULES, **keys})


def frames(images: list[Image]) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
    rows = pl.DataFrame(
        [(name(i), image.label, image.dataset, image.split) for i, image in enumerate(images)],
        schema={"image_id": pl.Binary, "label": pl.String, "dataset": pl.String, "split": pl.String},
        orient="row",
    )
    clusters = {
        rule: pl.DataFrame(
            [(name(i), getattr(image, rule)) for i, image in enumerate(images) if getattr(image, rule)],
            schema={"image_id": pl.Binary, "cluster_id": pl.Int64},
            orient="row",
        )
        for rule in RULES
    }
    return with_identity(rows), clusters


def draw(spec: SplitPart, images: list[Image]) -> Drawn:
    return draw_groups(spec, *frames(images))


def try_draw(keys: dict[str, Any], images: list[Image]) -> tuple[SplitPart, Drawn]:
    """Draw, or skip the example if its request is impossible."""
    spec = spec_of(**keys)
    try:
        return spec, draw(spec, images)
    except SplitError:
        assume(condition=False)
        raise


def groups_of(images: list[Image]) -> list[set[int]]:
    """Join images one cluster after the other."""
    groups: list[set[int]] = [{i} for i in range(len(images))]
    for rule in RULES:
        for cluster in {getattr(image, rule) for image in images} - {0}:
            members = {i for i, image in enumerate(images) if getattr(image, rule) == cluster}
            joined = set().union(*(group for group in groups if group & members))
            groups = [group for group in groups if not group & members] + [joined]
    return groups


@few(12)
@given(SPECS, IMAGES)
@example(*TORN)
def test_no_group_has_kept_images_in_two_roles_unless_protected(keys: dict[str, Any], images: list[Image]) -> None:
    sources = {keys[role]["from"] for role in ROLES}
    images = [image for image in images if {image.split, f"{image.dataset}/{image.split}"} & sources]
    spec, drawn = try_draw(keys, images)
    rows = {row["image_id"]: row for row in drawn.rows.iter_rows(named=True)}
    for group in groups_of(images):
        inside = [rows[name(i)] for i in group if name(i) in rows]
        assert len(inside) in (0, len(group))
        kept = [row for row in inside if row["kept"]]
        assert bool(kept) == bool(inside)
        assert len({row["role"] for row in kept}) <= 1 or {row["dataset"] for row in kept} <= set(spec.protected)
        assert all(row["kept"] for row in inside if row["dataset"] in spec.protected)
    torn = straddling(spec, drawn.rows, drawn.rows, frames(images)[1])
    assert torn.is_empty() or spec.protected


@few(12)
@given(SPECS, IMAGES)
@example(*TORN)
def test_rows_are_drawn_from_their_source_and_every_dropped_one_has_a_reason(
    keys: dict[str, Any], images: list[Image]
) -> None:
    spec, drawn = try_draw(keys, images)
    place = {name(i): i for i in range(len(images))}
    rows = {row["image_id"]: row for row in drawn.rows.iter_rows(named=True)}
    for row in rows.values():
        assert spec.roles[row["role"]].source_split in {row["split"], f"{row['dataset']}/{row['split']}"}
        if row["kept"]:
            assert (row["dropped_by"], row["dropped_for"], row["reason"]) == (None, None, None)
            continue
        keeper = rows[row["dropped_for"]]
        assert row["reason"] == "overlap"
        assert keeper["kept"]
        assert keeper["role"] != row["role"]
        mine, theirs = images[place[row["image_id"]]], images[place[row["dropped_for"]]]
        shared = [rule for rule in RULES if getattr(mine, rule) == getattr(theirs, rule) > 0]
        assert getattr(mine, row["dropped_by"]) > 0
        assert row["dropped_by"] in shared or not shared
        number = getattr(mine, row["dropped_by"])
        near = [
            image
            for image, other in rows.items()
            if other["kept"]
            and other["role"] != row["role"]
            and getattr(images[place[image]], row["dropped_by"]) == number
        ]
        assert row["dropped_for"] == min(near, default=row["dropped_for"])
    ranks = drawn.rows.group_by("role").agg(pl.col("rank").sort())
    assert all(found.to_list() == list(range(len(found))) for found in ranks["rank"])


@few(12)
@given(SPECS, IMAGES, st.integers(0, 2**32))
def test_the_order_of_images_and_clusters_does_not_matter(keys: dict[str, Any], images: list[Image], seed: int) -> None:
    spec, drawn = try_draw(keys, images)
    rows, clusters = frames(images)
    shuffled = {rule: rows.sample(fraction=1, shuffle=True, seed=seed) for rule, rows in clusters.items()}
    again = draw_groups(spec, rows.sample(fraction=1, shuffle=True, seed=seed), shuffled)
    assert again.rows.equals(drawn.rows)
    assert again.deviation.equals(drawn.deviation)


@few(12)
@given(st.lists(st.sampled_from("AABC"), min_size=30, max_size=80), st.integers(0, 99))
def test_single_images_meet_sizes_and_shares_exactly(labels: list[str], seed: int) -> None:
    images = [Image(label) for label in labels]
    shares = {"train": 0.7, "valid": 0.1, "test": 0.2}
    drawn = draw(spec_of(seed=seed, **{r: {"from": "train", "share": s} for r, s in shares.items()}), images)
    assert len(drawn.rows) == len(images)
    assert drawn.deviation["requested"].equals(drawn.deviation["got"].alias("requested"))
    for role, label, _, got in drawn.deviation.rows():
        assert abs(got - shares[role] * labels.count(label)) < 2
    sized = draw(spec_of(seed=seed, train={"from": "train"}, test={"from": "train", "size": 5}), images * 3)
    assert sorted(sized.deviation.filter(role="test")["got"]) == sorted(quotas(5, sorted(set(labels))).values())
    assert len(sized.rows) == 3 * len(images)


@given(st.lists(st.integers(1, 12), min_size=3, max_size=12), st.integers(0, 99))
@example([12, 10, 9, 9, 8, 8, 8], 0)
def test_shares_that_add_up_to_1_leave_no_image_out(sizes: list[int], seed: int) -> None:
    images = [Image("AB"[at % 2], exact=group) for group, size in enumerate(sizes, 1) for at in range(size)]
    asks = dict(zip(ROLES, (0.7, 0.15, 0.15), strict=True))
    spec = spec_of(seed=seed, **{role: {"from": "train", "share": share} for role, share in asks.items()})
    rows = draw(spec, images).rows
    assert len(rows) == len(images)
    assert rows["kept"].all()


@pytest.mark.parametrize("order", [None, "attr:day"])
def test_a_share_of_1_takes_every_group(order: str | None) -> None:
    images = [Image("AB"[i % 2], exact=i // 7) for i in range(40)]
    values = pl.DataFrame({"image_id": [name(i) for i in range(40)], "value": range(40)})
    spec = spec_of(train={"from": "train", "share": 1.0}, order=order)
    drawn = draw_groups(spec, *frames(images), attribute=values if order else None)
    assert drawn.rows.filter("kept").height == 40


def test_the_rest_of_a_share_goes_to_the_labels_with_the_largest_fractions() -> None:
    images = [Image(label) for label, count in (("A", 11), ("B", 12), ("C", 17)) for _ in range(count)]
    roles = {role: {"from": "train", "share": 0.3} for role in ("train", "test")}
    drawn = draw(spec_of(keep=("train", "valid", "test"), **roles), images)
    # 0.3 of each label is 3.3, 3.6 and 5.1: of 12 images, B gets one more than 3. Both shares are 6.6, 7.2 and 10.2: of
    # 24 images, A gets one more than 6, so the second share has 7 - 3, 7 - 4 and 10 - 5 images.
    assert drawn.deviation["requested"].to_list() == drawn.deviation["got"].to_list() == [3, 4, 5, 4, 3, 5]


@few(12)
@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from("AAB")), min_size=10, max_size=40), st.integers(0, 99))
def test_groups_of_one_label_differ_from_the_request_by_at_most_half_the_largest(
    groups: list[tuple[int, str]], seed: int
) -> None:
    images = [Image(label, exact=n + 1) for n, (size, label) in enumerate(groups) for _ in range(size)]
    roles = {"train": {"from": "train", "share": 0.6}, "test": {"from": "train", "share": 0.2}}
    _, drawn = try_draw({"seed": seed, **roles}, images)
    for _, label, asked, got in drawn.deviation.rows():
        assert 2 * abs(asked - got) <= max(size for size, of in groups if of == label)


def test_classes_keep_their_proportion_and_large_groups_find_a_place() -> None:
    images = [Image(exact=1)] * 500 + [Image("AB"[i % 5 // 4]) for i in range(500)]
    shares = {"train": 0.8, "valid": 0.1, "test": 0.1}
    tables = frames(images)
    for seed in range(5):
        spec = spec_of(seed=seed, **{r: {"from": "train", "share": s} for r, s in shares.items()})
        drawn = draw_groups(spec, *tables)
        assert drawn.deviation.rows() == [
            ("train", "A", 720, 720),
            ("train", "B", 80, 80),
            ("valid", "A", 90, 90),
            ("valid", "B", 10, 10),
            ("test", "A", 90, 90),
            ("test", "B", 10, 10),
        ]


def test_a_large_group_is_in_a_sample_as_often_as_a_small_one() -> None:
    images = [Image(exact=1 + i // 20) for i in range(400)] + [Image() for _ in range(600)]
    spec, tables = {"train": {"from": "train", "size": 200}}, frames(images)
    drawn = pl.concat(draw_groups(spec_of(seed=seed, **spec), *tables).rows for seed in range(40))
    assert 65 < drawn["image_id"].is_in([name(i) for i in range(400)]).sum() / 40 < 95  # 80 of 200


@pytest.mark.parametrize(
    ("keep", "kept"), [(("train", "valid", "test"), "train"), (("test", "valid", "train"), "test")]
)
def test_a_group_of_two_sources_goes_to_the_first_role_that_keeps(keep: tuple[str, ...], kept: str) -> None:
    images = [Image(split="train", exact=1), Image(split="test", exact=1), Image(split="train"), Image(split="test")]
    drawn = draw(spec_of(keep=keep, train={"from": "train"}, test={"from": "test"}), images)
    assert drawn.rows.filter("kept").filter(pl.col("image_id").is_in([name(0), name(1)]))["role"].to_list() == [kept]
    assert drawn.deviation.rows() == [
        ("train", "A", 2, 1 + (kept == "train")),
        ("test", "A", 2, 1 + (kept == "test")),
    ]


def test_sanitizing_starts_from_the_rows_that_groups_kept() -> None:
    images = [Image(split="train", exact=1), Image(split="test", exact=1), Image(sign=2), Image(split="test", sign=2)]
    spec = spec_of(groups="exact", sanitize="sign", train={"from": "train"}, test={"from": "test"})
    rows, clusters = frames(images)
    drawn = draw_groups(spec, rows, clusters)
    result = sanitize(spec, drawn.rows, clusters)
    assert sorted(result.drop_nulls("dropped_by")["dropped_by"]) == ["exact", "sign"]


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ({"train": {"from": "train", "size": 11}}, "train requests 11 images from 'train', more than its classes"),
        ({"train": {"from": "nowhere"}}, "takes from 'nowhere', which has no images"),
        ({"train": {"from": "train", "share": 0.7}, "test": {"from": "train", "share": 0.7}}, "add up to 1.4"),
        ({"train": {"from": "train"}, "test": {"from": "train"}}, "test takes all of 'train', but the other roles"),
        ({"train": {"from": "train", "size": 2}}, "train gets nothing: no group .* largest has 10 images"),
    ],
)
def test_an_impossible_request_is_an_error(roles: dict[str, Any], said: str) -> None:
    with pytest.raises(SplitError, match=said):
        draw(spec_of(**roles), [Image(exact=1)] * 10)
