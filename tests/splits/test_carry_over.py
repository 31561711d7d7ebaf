"""Images keep the role that they had in the previous split."""

from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from examples import few
from hypothesis import given
from hypothesis import strategies as st
from making import with_identity

from pipeline.errors import SplitError
from pipeline.recipe import ROLES, SplitPart
from pipeline.splits.groups import Drawn, draw_groups
from pipeline.splits.previous import Moves, PreviousSplit

# By number of the image: label, source split, and number of its cluster; 0 is no cluster.
Images = dict[int, tuple[str, str, int]]

STILL = Moves(0, 0, 0, 0)
SHARES = {r: {"from": "train", "share": s} for r, s in (("train", 0.6), ("valid", 0.2), ("test", 0.2))}
REST = {"train": {"from": "train"}, "valid": {"from": "train", "share": 0.2}, "test": {"from": "test", "size": 4}}
SIZES = {r: {"from": "train", "size": s} for r, s in (("train", 8), ("valid", 2), ("test", 4))}
ASKS = st.sampled_from([SHARES, REST, SIZES])


def images(first: int, clusters: st.SearchStrategy[int], *, least: int, most: int) -> st.SearchStrategy[Images]:
    one = st.tuples(st.sampled_from("AAB"), st.sampled_from(["train", "train", "test"]), clusters)
    return st.lists(one, min_size=least, max_size=most).map(
        lambda found: {first + i: image for i, image in enumerate(found)}
    )


OLD = images(0, st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5]), least=10, most=40).map(
    lambda found: {**found, **{90 + i: ("AB"[i % 2], ("train", "test")[i // 30], 0) for i in range(40)}}
)
UNLINKED = images(200, st.sampled_from([0, 0, 11, 12, 13]), least=1, most=30)
LINKED = images(200, st.sampled_from([0, 1, 2, 3, 12]), least=1, most=30)


@cache
def name(i: int) -> bytes:
    return np.random.default_rng(i).bytes(16)


def spec_of(**keys: Any) -> SplitPart:
    return SplitPart.model_validate({"name": "m", "groups": "exact", **keys})


def draw(spec: SplitPart, found: Images, before: tuple[SplitPart, Drawn] | None = None, **links: int) -> Drawn:
    rows = [(name(i), label, "a", split, links.get(f"i{i}", cluster)) for i, (label, split, cluster) in found.items()]
    columns = {"image_id": pl.Binary, "label": pl.String, "dataset": pl.String, "split": pl.String, "cluster_id": int}
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    frame = with_identity(frame)
    was = before and PreviousSplit(before[0], before[1].rows, identities(before[1]))
    return draw_groups(spec, frame.drop("cluster_id"), {"exact": frame.filter(pl.col("cluster_id") > 0)}, was)


def identities(drawn: Drawn) -> pl.DataFrame:
    return with_identity(drawn.rows.select("image_id"))


def roles(drawn: Drawn) -> dict[bytes, str]:
    return dict(drawn.rows.filter("kept").select("image_id", "role").rows())


@few(12)
@given(OLD, ASKS, st.integers(0, 9))
def test_drawing_again_changes_nothing(old: Images, asks: dict[str, Any], seed: int) -> None:
    spec = spec_of(seed=seed, **asks)
    first = draw(spec, old)
    again = draw(spec, old, (spec, first))
    assert again.rows.equals(first.rows)
    assert again.moves == STILL


@few(12)
@given(OLD, UNLINKED, ASKS, st.integers(0, 9))
def test_images_without_links_move_no_other_image(old: Images, new: Images, asks: dict[str, Any], seed: int) -> None:
    spec = spec_of(seed=seed, **asks)
    first = draw(spec, old)
    more = draw(spec, {**old, **new}, (spec, first))
    assert roles(first).items() <= roles(more).items()
    assert more.moves == Moves(0, 0, 0, len(roles(more)) - len(roles(first)))
    back = draw(spec, old, (spec, more))
    assert roles(first).items() <= roles(back).items()
    assert back.moves is not None
    assert len(roles(more)) - back.moves.left + back.moves.joined == len(roles(back))


@few(12)
@given(OLD, LINKED, ASKS, st.permutations(ROLES))
def test_links_move_only_what_they_link(old: Images, new: Images, asks: dict[str, Any], keep: tuple[str, ...]) -> None:
    """New images make clusters of 1, 2 and 3 larger, and one more link makes one group of 4 and 5."""
    spec = spec_of(keep=keep, **asks)
    first = draw(spec, old)
    joined = {f"i{i}": 4 for i, (_, _, cluster) in old.items() if cluster == 5}
    more = draw(spec, {**old, **new}, (spec, first), **joined)
    was, now = roles(first), roles(more)
    linked = {name(i) for i, (_, _, cluster) in old.items() if cluster in (4, 5)}
    lost = {image for image, role in was.items() if now.get(image) != role}
    assert lost <= linked
    assert more.moves == Moves(len(lost), len(lost), 0, len(now.keys() - was.keys()))
    if lost:
        stays = min((was[image] for image in linked if image in was), key=keep.index)
        assert {now[image] for image in linked if image in now} == {stays}


@few(12)
@given(OLD, st.integers(0, 9))
def test_requesting_less_frees_the_end_and_requesting_more_fills_up(old: Images, seed: int) -> None:
    old = {i: (label, "train", 0) for i, (label, _, _) in old.items()}
    specs = {
        size: spec_of(seed=seed, test={"from": "train", "size": size}, train={"from": "train", "size": 6})
        for size in (4, 10)
    }
    small, large = draw(specs[4], old), draw(specs[10], old)
    grown, cut = draw(specs[10], old, (specs[4], small)), draw(specs[4], old, (specs[10], large))
    assert roles(small).items() <= roles(grown).items()
    assert grown.moves == Moves(0, 0, 0, 6)
    assert roles(cut).items() <= roles(large).items()
    assert cut.moves == Moves(0, 0, 6, 0)
    assert roles(cut) == roles(small)
    for drawn in (grown, cut):
        assert drawn.deviation["requested"].to_list() == drawn.deviation["got"].to_list()


def test_what_a_smaller_role_leaves_a_role_that_takes_all_gets() -> None:
    found: Images = dict.fromkeys(range(20), ("A", "train", 0))
    before, after = (spec_of(test={"from": "train", "size": n}, train={"from": "train"}) for n in (10, 4))
    drawn = draw(after, found, (before, draw(before, found)))
    assert drawn.moves == Moves(6, 0, 0, 0)
    assert len(drawn.rows) == 20


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"name": "other"}, {"groups": ["exact", "exact"]}, {"valid": {"from": "train", "size": 1}}]
)
def test_another_seed_name_rule_or_source_draws_anew(change: dict[str, Any]) -> None:
    found: Images = dict.fromkeys(range(20), ("A", "train", 0))
    asks = {"train": {"from": "train", "share": 0.5}, "test": {"from": "train", "size": 4}}
    old, new = spec_of(**asks), spec_of(**{**asks, **change})
    drawn = draw(new, found, (old, draw(old, found)))
    assert drawn.rows.equals(draw(new, found).rows)
    was, now = roles(draw(old, found)), roles(drawn)
    moved = sum(now[image] != role for image, role in was.items() if image in now)
    assert drawn.moves == Moves(moved, 0, len(was.keys() - now.keys()), len(now.keys() - was.keys()))


def test_a_dataset_that_is_protected_now_pulls_its_group_to_its_role() -> None:
    found: Images = {1: ("A", "train", 1), 2: ("A", "test", 1), 3: ("A", "train", 0), 4: ("A", "test", 0)}
    asks = {"train": {"from": "train"}, "test": {"from": "test"}}
    rows = pl.DataFrame(
        [(name(i), label, {"train": "web", "test": "bench"}[split], split) for i, (label, split, _) in found.items()],
        schema=["image_id", "label", "dataset", "split"],
        orient="row",
    )
    clusters = {"exact": pl.DataFrame({"image_id": [name(1), name(2)], "cluster_id": [1, 1]})}
    rows = with_identity(rows)
    first = draw_groups(spec_of(**asks), rows, clusters)
    assert roles(first) == {name(1): "train", name(3): "train", name(4): "test"}
    before = PreviousSplit(spec_of(**asks), first.rows, rows.select("image_id", "file_digest", "content_hash"))
    drawn = draw_groups(spec_of(protected="bench", **asks), rows, clusters, before)
    assert roles(drawn) == {name(2): "test", name(3): "train", name(4): "test"}
    assert drawn.moves == Moves(1, 1, 0, 1)


def test_sizes_that_the_old_and_the_new_split_cannot_give_are_errors() -> None:
    found: Images = dict.fromkeys(range(9), ("A", "train", 0))
    spec = spec_of(train={"from": "train", "size": 8})
    first = draw(spec, found)
    with pytest.raises(SplitError, match="A 7 of 8"):
        draw(spec, {i: found[i] for i in range(7)}, (spec, first))
