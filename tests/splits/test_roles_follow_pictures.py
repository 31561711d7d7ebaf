"""A picture keeps its role when its file is renamed, relabelled or moved: roles depend on files, not on paths."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import with_identity

from pipeline.errors import SplitError
from pipeline.recipe import SplitPart
from pipeline.splits.draw import draw_column, draw_roles
from pipeline.splits.groups import draw_groups
from pipeline.splits.previous import Moves, PreviousSplit, count_moves, previous_roles

SHARES = {r: {"from": "train", "share": s} for r, s in (("train", 0.5), ("valid", 0.2), ("test", 0.3))}
SIZES = {r: {"from": "train", "size": s} for r, s in (("train", 20), ("valid", 4), ("test", 10))}
REST = {"valid": {"from": "train", "size": 10}, "train": {"from": "train"}}
# Of every picture: its label, and the number of copies. There are just enough of each class for `SIZES` and 3 more.
PICTURES = st.lists(st.integers(1, 3), min_size=40, max_size=50).map(
    lambda found: [("AB"[i % 2], count) for i, count in enumerate(found)]
)


def name(i: int) -> bytes:
    return i.to_bytes(16, "big")


def spec_of(**keys: Any) -> SplitPart:
    return SplitPart.model_validate({"name": "m", **keys})


def frame(rows: list[tuple[int, int, str]], split: str = "train", dataset: str = "d") -> pl.DataFrame:
    """Lay out images, each (number of its id, number of its picture, label)."""
    images = pl.DataFrame(
        [(name(i), label, dataset, split) for i, _, label in rows],
        schema={"image_id": pl.Binary, "label": pl.String, "dataset": pl.String, "split": pl.String},
        orient="row",
    )
    return with_identity(images, [picture for _, picture, _ in rows])


def roles_of(images: pl.DataFrame, rows: pl.DataFrame) -> list[tuple[bytes, str, str | None]]:
    """List the roles that every picture has, with the label of each file; sorted."""
    found = images.join(rows.select("image_id", "role"), on="image_id", how="left")
    listed: list[tuple[bytes, str, str | None]] = (
        found.select("file_digest", "label", pl.col("role").fill_null("")).sort(pl.all()).rows()
    )
    return listed


def roles_by_digest(images: pl.DataFrame, rows: pl.DataFrame) -> dict[bytes, str]:
    return dict(rows.join(images, on="image_id").select("file_digest", "role").rows())


def copies(images: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Cluster equal files."""
    clusters = images.select("image_id", cluster_id="file_digest")
    return {"exact": clusters.filter(pl.len().over("cluster_id") > 1)}


def images_of(pictures: list[tuple[str, int]], ids: list[int]) -> pl.DataFrame:
    rows = [(picture, label) for picture, (label, count) in enumerate(pictures) for _ in range(count)]
    return frame([(ids[i], picture, label) for i, (picture, label) in enumerate(rows)])


@given(PICTURES, st.randoms(use_true_random=False), st.sampled_from([SHARES, SIZES, {"test": SHARES["test"], **REST}]))
@settings(max_examples=30)
def test_other_names_change_no_role(pictures: list[tuple[str, int]], random: Any, roles: dict[str, Any]) -> None:
    plain, grouped = spec_of(**roles), spec_of(groups="exact", **roles)
    ids = list(range(sum(count for _, count in pictures)))
    shuffled = random.sample(range(1000), len(ids))
    before, after = images_of(pictures, ids), images_of(pictures, shuffled)
    assert roles_of(before, draw_roles(plain, before)) == roles_of(after, draw_roles(plain, after))
    drawn = [draw_groups(grouped, images, copies(images)).rows for images in (before, after)]
    assert roles_of(before, drawn[0]) == roles_of(after, drawn[1])


@given(PICTURES, st.integers(0, 9), st.data())
@settings(max_examples=30)
def test_shares_are_the_same_grown_or_at_once(pictures: list[tuple[str, int]], seed: int, data: st.DataObject) -> None:
    """Any part of the images has the roles that it has among all, whatever their labels; equal files have one role."""
    spec = spec_of(seed=seed, **SHARES)
    images = images_of(pictures, list(range(200)))
    whole = draw_roles(spec, images)
    part = images.filter(pl.Series(data.draw(st.lists(st.booleans(), min_size=len(images), max_size=len(images)))))
    relabelled = part.with_columns(label=pl.lit("C"))
    for some in (part, relabelled):
        if len(some):
            rows = draw_roles(spec, some)
            assert rows.join(whole, on=["image_id", "role"], how="anti").is_empty()
            assert len(rows) == len(some)
    assert whole.join(images, on="image_id").group_by("file_digest").agg(pl.col("role").n_unique())["role"].max() == 1


def test_shares_are_met_on_average_and_test_is_the_last_to_change() -> None:
    images = frame([(i, i, "A") for i in range(4000)])
    before = draw_roles(spec_of(**SHARES), images)
    counts = dict(before.group_by("role").len().rows())
    assert {role: round(count / 4000, 1) for role, count in counts.items()} == {"train": 0.5, "valid": 0.2, "test": 0.3}
    less = {**SHARES, "train": {"from": "train", "share": 0.4}}
    after = draw_roles(spec_of(**less), images)
    assert after.join(before, on=["image_id", "role"], how="anti").is_empty()
    assert len(after.filter(role="train")) < len(before.filter(role="train"))
    assert after.filter(pl.col("role") != "train").height == before.filter(pl.col("role") != "train").height


def test_sizes_and_all_take_what_shares_leave() -> None:
    images = frame([(i, i, "AB"[i % 2]) for i in range(300)])
    rows = draw_roles(spec_of(test=SHARES["test"], **REST), images)
    assert sorted(rows["image_id"]) == sorted(images["image_id"])
    assert len(rows.filter(role="valid")) == 10
    alone = draw_roles(spec_of(test=SHARES["test"]), images)
    assert set(rows.filter(role="test")["image_id"]) == set(alone["image_id"])


@pytest.mark.parametrize("groups", [(), ("exact",)])
def test_shares_of_more_than_everything_are_an_error(groups: tuple[str, ...]) -> None:
    images = frame([(i, i, "A") for i in range(10)])
    spec = spec_of(groups=groups, train={"from": "train", "share": 0.8}, test={"from": "train", "share": 0.3})
    with pytest.raises(SplitError, match=r"the shares of 'train' add up to 1\.1\. Reduce them to at most 1 in total"):
        draw_groups(spec, images, copies(images)) if groups else draw_roles(spec, images)
    # "train" and "d/train" share images; of different sources each has a whole.
    overlapping = spec_of(train={"from": "d/train", "share": 0.8}, test={"from": "train", "share": 0.3})
    with pytest.raises(SplitError, match=r"the shares of 'd/train' add up to 1\.1"):
        draw_roles(overlapping, images)
    both = pl.concat([images, frame([(50 + i, i, "A") for i in range(10)], split="test")])
    assert len(draw_roles(spec_of(train={"from": "train", "share": 0.8}, test={"from": "test", "share": 0.8}), both))


def test_shares_that_add_up_to_1_leave_no_image_out() -> None:
    images = frame([(i, i, "A") for i in range(5000)])
    for shares in ((0.1, 0.2, 0.7), (1 / 3, 1 / 3, 1 / 3), (0.7, 0.1, 0.2)):
        roles = {role: {"from": "train", "share": share} for role, share in zip(SHARES, shares, strict=True)}
        assert len(draw_roles(spec_of(**roles), images)) == len(images)


@given(st.sets(st.integers(0, 79), min_size=1, max_size=8), st.integers(0, 9))
def test_a_relabelled_file_of_a_sized_split_moves_what_the_quotas_demand(changed: set[int], seed: int) -> None:
    """A class may lose places of files that left it and of files that came: no other file moves, in each role."""
    spec = spec_of(seed=seed, test=SIZES["test"], train={"from": "train", "size": 20})
    before = frame([(i, i, "AB"[i % 2]) for i in range(80)])
    # A relabelled file is another image_id too.
    after = frame([(100 + i if i in changed else i, i, "AB"[(i + (i in changed)) % 2]) for i in range(80)])
    was, now = (roles_by_digest(images, draw_roles(spec, images)) for images in (before, after))
    digests = dict(zip(range(80), before["file_digest"], strict=True))
    moved = [i for i in set(range(80)) - changed if was.get(digests[i]) != now.get(digests[i])]
    # Every relabelled file makes one place in its old class and needs one in its new one, in two roles.
    assert len(moved) <= 4 * len(changed)


def before_of(images: pl.DataFrame, roles: dict[int, str]) -> PreviousSplit:
    rows = pl.DataFrame(
        [(name(i), role, None, None) for i, role in roles.items()],
        schema={"image_id": pl.Binary, "role": pl.String, "dropped_by": pl.String, "reason": pl.String},
        orient="row",
    )
    return PreviousSplit(spec_of(**SHARES), rows, images.select("image_id", "file_digest", "content_hash"))


def matched(now: list[tuple[int, int]], old: list[tuple[int, int]], roles: dict[int, str], **known: bool) -> list[Any]:
    """Match images, each (number of its id, number of its picture)."""
    images, past = (frame([(*row, "A") for row in rows]) for rows in (now, old))
    if not known.get("digest", True):
        past = past.with_columns(file_digest=pl.lit(None, pl.Binary))
    return previous_roles(images, before_of(past, roles)).to_list()


@pytest.mark.parametrize("digest", [True, False])
def test_pictures_are_matched_by_file_then_pixels_then_name(digest: bool) -> None:  # noqa: FBT001
    roles = {1: "train", 2: "test", 3: "valid"}
    old = [(1, 1), (2, 2), (3, 3), (4, 4)]
    for now, expected in {
        ((1, 1), (2, 2), (3, 3), (4, 4)): ["train", "test", "valid", None],
        ((7, 2), (8, 1), (9, 3)): ["test", "train", "valid"],  # renamed
        ((1, 2), (2, 1)): ["test", "train"],  # names swapped
        ((1, 9), (2, 2)): ["train", "test"],  # edited in place
        ((1, 9), (5, 1)): [None, "train"],  # renamed, and another file has its name
        ((4, 4), (5, 4)): [None, None],  # a copy of a picture without a role
        ((5, 1), (1, 1), (6, 1)): [None, "train", None],  # one role for one image
    }.items():
        assert matched(list(now), old, roles, digest=digest) == expected


@pytest.mark.parametrize("digest", [True, False])
def test_copies_are_matched_in_the_order_of_their_ids(digest: bool) -> None:  # noqa: FBT001
    old, roles = [(1, 1), (2, 1), (3, 1)], {1: "train", 2: "test"}
    assert matched([(9, 1), (7, 1), (8, 1)], old, roles, digest=digest) == [None, "train", "test"]
    # Copies that kept their name keep their role, whatever the names of the others.
    assert matched([(0, 1), (2, 1), (3, 1)], old, roles, digest=digest) == ["train", "test", None]


def test_the_same_pixels_in_another_file_are_the_same_picture() -> None:
    old = frame([(1, 1, "A"), (2, 2, "A")])
    other = with_identity(old.drop("file_digest", "content_hash"), ["x", "y"])
    now = old.with_columns(other["file_digest"], image_id=pl.Series([name(8), name(9)]))
    assert previous_roles(now, before_of(old, {1: "train", 2: "test"})).to_list() == ["train", "test"]


def test_images_of_a_lost_file_are_matched_by_name() -> None:
    images = frame([(1, 1, "A"), (2, 2, "A")])
    previous = before_of(images.filter(pl.col("image_id") == name(2)), {1: "train", 2: "test"})
    assert previous_roles(images, previous).to_list() == ["train", "test"]


def test_moves_add_up() -> None:
    old = before_of(frame([(i, i, "A") for i in range(10)]), {i: "train" if i < 6 else "test" for i in range(9)})
    now = frame([(100 + i, i, "A") for i in range(3, 14)])
    roles = {103: "train", 104: "test", 105: "train", 106: "test", 109: "test", 110: "train", 111: "train"}
    rows = pl.DataFrame({"image_id": [name(i) for i in roles], "role": list(roles.values())})
    moves = count_moves(now, rows, old)
    assert (moves.moved, moves.left, moves.joined) == (1, 5, 3)
    assert len(old.members) - moves.left + moves.joined == len(roles)


def test_of_equal_files_none_moves_when_their_names_change_their_order() -> None:
    old = before_of(frame([(1, 1, "A"), (2, 1, "A"), (3, 1, "A")]), {1: "train", 2: "test"})
    rows = pl.DataFrame({"image_id": [name(2), name(3)], "role": ["train", "test"]})
    assert count_moves(frame([(2, 1, "A"), (3, 1, "A"), (4, 1, "A")]), rows, old) == Moves(0, 0, 0, 0)


@given(PICTURES, st.randoms(use_true_random=False), st.sampled_from([SHARES, SIZES]))
@settings(max_examples=30)
def test_groups_keep_roles_of_renamed_and_relabelled_files(
    pictures: list[tuple[str, int]], random: Any, roles: dict[str, Any]
) -> None:
    spec = spec_of(groups="exact", **roles)
    before = images_of(pictures, list(range(200)))
    first = draw_groups(spec, before, copies(before)).rows
    new_ids = random.sample(range(1000), len(before))
    others = random.sample(range(len(pictures)), 3)
    relabelled = [("B" if i in others else label, count) for i, (label, count) in enumerate(pictures)]
    after = images_of(relabelled, new_ids)
    known = PreviousSplit(spec, first, before.select("image_id", "file_digest", "content_hash"))
    second = draw_groups(spec, after, copies(after), known)
    was, now = roles_by_digest(before, first), roles_by_digest(after, second.rows)
    assert was.items() <= now.items()
    assert second.moves is not None
    assert (second.moves.moved, second.moves.left) == (0, 0)


def test_images_without_a_digest_are_drawn_by_their_pixels() -> None:
    images = frame([(i, i, "AB"[i % 2]) for i in range(60)])
    bare = images.with_columns(file_digest=pl.when(pl.col("label") == "A").then("file_digest"))
    spec = spec_of(**SHARES)
    assert draw_column(spec, images.lazy()) == "file_digest"
    assert draw_column(spec, bare.lazy()) == "content_hash"
    elsewhere = spec_of(train={"from": "test"})
    assert draw_column(elsewhere, pl.concat([bare, frame([(99, 99, "A")], split="test")]).lazy()) == "file_digest"
    # Digests that come later change nothing, as the split stays with the column.
    assert draw_roles(spec, bare, "content_hash").equals(draw_roles(spec, images, "content_hash"))
    assert not draw_roles(spec, images, "content_hash").equals(draw_roles(spec, images))


def test_copies_are_not_neighbours_in_a_role() -> None:
    images = frame([(i, i % 100, "A") for i in range(400)])
    rows = draw_roles(spec_of(train={"from": "train"}), images).join(images, on="image_id", maintain_order="left")
    assert (rows["file_digest"] == rows["file_digest"].shift(1)).sum() < 20
    assert rows.head(100)["file_digest"].n_unique() > 50
