import numpy as np
import polars as pl
import pytest
from examples import few
from hypothesis import given
from hypothesis import strategies as st
from making import with_identity

from pipeline.errors import SplitError
from pipeline.hashing import image_ids
from pipeline.recipe import SplitPart
from pipeline.splits.draw import class_names, draw_roles, quotas


def images(counts: dict[tuple[str, str | None], int], dataset: str = "d") -> pl.DataFrame:
    """Make `counts[split, label]` images."""
    rows = [(f"{split}/{label}/{i}", label, split) for (split, label), n in counts.items() for i in range(n)]
    paths = [path for path, *_ in rows]
    made = pl.DataFrame(
        {
            "image_id": [bytes(row) for row in image_ids(dataset, "", paths)],
            "label": [r[1] for r in rows],
            "dataset": dataset,
            "split": [r[2] for r in rows],
        },
        schema_overrides={"label": pl.String},
    )
    return with_identity(made, [(dataset, path) for path in paths])


def split(**roles: object) -> SplitPart:
    return SplitPart.model_validate({"name": "main", "seed": 1, **roles})


POOL = images({("train", "A"): 60, ("train", "B"): 60, ("train", "C"): 60, ("test", "A"): 20, ("test", "B"): 20})
THREE = split(
    train={"from": "train", "size": 90}, valid={"from": "train", "size": 31}, test={"from": "test", "size": 10}
)


def test_every_class_fills_its_quota_and_no_image_has_two_roles() -> None:
    rows = draw_roles(THREE, POOL)
    counts = dict(rows.group_by("role", "label").len().select(pl.concat_str("role", "label"), "len").rows())
    expected = {
        "trainA": 30,
        "trainB": 30,
        "trainC": 30,
        "validA": 11,
        "validB": 10,
        "validC": 10,
        "testA": 5,
        "testB": 5,
    }
    assert counts == expected
    assert rows["image_id"].is_unique().all()
    assert all(sorted(rows.filter(role=role)["rank"]) == list(range(n)) for role, n in [("train", 90), ("valid", 31)])


@few(20)
@given(st.randoms(use_true_random=False))
def test_the_order_of_files_does_not_matter(random: object) -> None:
    shuffled = POOL.sample(fraction=1, shuffle=True, seed=random.randrange(2**31))  # type: ignore[attr-defined] # hypothesis' own Random
    assert draw_roles(THREE, shuffled).equals(draw_roles(THREE, POOL))


def test_a_larger_train_role_takes_nothing_from_valid_and_test() -> None:
    larger = THREE.model_copy(update={"train": THREE.train.model_copy(update={"size": 120})})  # type: ignore[union-attr] # it has one
    before, after = draw_roles(THREE, POOL), draw_roles(larger, POOL)
    for role in ("valid", "test"):
        assert after.filter(role=role).equals(before.filter(role=role))
    assert set(before.filter(role="train")["image_id"]) < set(after.filter(role="train")["image_id"])


def test_one_more_image_takes_at_most_one_place() -> None:
    more = pl.concat([POOL, images({("train", "A"): 1}, dataset="e")])
    before, after = (set(draw_roles(THREE, pool).select("role", "image_id").rows()) for pool in (POOL, more))
    assert len(before - after) <= 2  # a chain: test has its own source, so train and valid at most


def test_a_share_of_1_takes_everything() -> None:
    whole = split(train={"from": "train", "share": 1.0}, test={"from": "test", "share": 1})
    rows = draw_roles(whole, POOL)
    assert dict(rows.group_by("role").len().rows()) == {"train": 180, "test": 40}
    with pytest.raises(SplitError, match=r"add up to 1\.1"):
        draw_roles(split(train={"from": "train", "share": 1.0}, test={"from": "train", "share": 0.1}), POOL)


def test_seeds_and_names_draw_differently() -> None:
    spec = split(train={"from": "train", "size": 30})
    drawn = [draw_roles(spec.model_copy(update=change), POOL) for change in ({}, {"seed": 2}, {"name": "other"})]
    assert not drawn[0].equals(drawn[1])
    assert not drawn[0].equals(drawn[2])


def test_labels_are_mixed_in_every_prefix() -> None:
    rows = draw_roles(split(train={"from": "train"}), POOL)
    assert rows.head(30)["label"].n_unique() == 3
    runs = (rows["label"] != rows["label"].shift(1)).sum()
    assert runs > 90  # 180 images of three classes in random order change class about 120 times


def test_all_is_what_the_sized_roles_leave() -> None:
    rows = draw_roles(split(train={"from": "train"}, valid={"from": "train", "size": 30}), POOL)
    assert dict(rows.group_by("role").len().rows()) == {"train": 150, "valid": 30}


def test_a_dataset_can_be_named() -> None:
    both = pl.concat([POOL, images({("train", "A"): 5}, dataset="e")])
    assert len(draw_roles(split(train={"from": "e/train"}), both)) == 5
    assert len(draw_roles(split(train={"from": "train"}), both)) == 185


def test_too_few_images_are_counted_by_class() -> None:
    with pytest.raises(SplitError) as caught:
        draw_roles(split(valid={"from": "train", "size": 30}, train={"from": "train", "size": 180}), POOL)
    said = "A 50 of 60, B 50 of 60, C 50 of 60. Request at most 150"
    assert said in str(caught.value)


def test_a_class_used_up_by_another_role_is_counted_as_none_left() -> None:
    pool = images({("train", "A"): 10, ("train", "B"): 5})
    with pytest.raises(SplitError, match="A 5 of 2, B 0 of 2. Request at most 0"):
        draw_roles(split(valid={"from": "train", "size": 10}, train={"from": "train", "size": 4}), pool)


def test_a_source_that_is_not_there_is_named() -> None:
    with pytest.raises(SplitError, match=r"takes from 'trian', which has no images. There are: d/test, d/train"):
        draw_roles(split(train={"from": "trian"}), POOL)
    with pytest.raises(SplitError, match="leave nothing"):
        draw_roles(split(train={"from": "train"}, valid={"from": "train"}), POOL)


def test_unlabelled_images_have_no_index_and_no_quota_beside_labelled_ones() -> None:
    bare = images({("test", None): 30})
    rows = draw_roles(split(test={"from": "test", "size": 12}), bare)
    assert len(rows) == 12
    assert rows["label_index"].null_count() == 12
    mixed = pl.concat([POOL, images({("train", None): 9})])
    assert draw_roles(split(train={"from": "train", "size": 30}), mixed)["label"].null_count() == 0


@given(st.integers(0, 10**6), st.integers(1, 50))
def test_quotas_add_up_and_differ_by_one_at_most(size: int, classes: int) -> None:
    shares = list(quotas(size, [str(i) for i in range(classes)]).values())
    assert sum(shares) == size
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


def test_class_names_sort_by_value_where_they_are_numbers() -> None:
    assert class_names(pl.Series(["10", "9", None, "1", "9"])) == ["1", "9", "10"]
    assert class_names(pl.Series(["b", "10", "9"])) == ["10", "9", "b"]


def test_the_draw_has_a_golden_value() -> None:
    rows = draw_roles(split(train={"from": "train", "size": 3}), POOL)
    assert [row.hex()[:8] for row in rows["image_id"]] == ["f66aa38d", "107b5bd3", "626e6674"]
    assert np.array_equal(rows["label_index"], [0, 2, 1])
