"""A changed setting of a split takes effect, or the recipe is refused: every field, with and without groups."""

from typing import Any

import polars as pl
import pytest
from making import recipe, with_identity

from pipeline.errors import RecipeError
from pipeline.recipe import ROLES, RolePart, SplitPart
from pipeline.splits.draw import draw_roles
from pipeline.splits.groups import Drawn, draw_groups
from pipeline.splits.previous import PreviousSplit
from pipeline.splits.sanitize import sanitize


def name(i: int) -> bytes:
    return i.to_bytes(16, "big")


def _lake() -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
    """Make 160 train and 40 test images of two datasets, most of them alone, and 22 pairs under two rules.

    Of the pairs, 8 link train with test, 4 of them under two labels; 8 are copies in train; 6 are copies in train under
    two labels.
    """
    rows = [(name(i), "AB"[i % 2], *(("web", "train") if i < 160 else ("bench", "test"))) for i in range(200)]
    linked = [(i, 160 + i + i // 4) for i in range(8)]
    pairs = linked + [(20 + i, 40 + i) for i in range(8)] + [(61 + i, 80 + i) for i in range(6)]
    images = pl.DataFrame(rows, schema=["image_id", "label", "dataset", "split"], orient="row")
    made = {
        rule: [(name(i), number) for number, pair in enumerate(pairs) if number % 2 == odd for i in pair]
        for odd, rule in enumerate(("sign", "exact"))
    }
    clusters = {rule: pl.DataFrame(of, schema=["image_id", "cluster_id"], orient="row") for rule, of in made.items()}
    return with_identity(images), clusters


IMAGES, CLUSTERS = _lake()
TRAIN, TEST = {"from": "train"}, {"from": "test"}
BOTH = {"groups": ["exact", "sign"], "train": TRAIN, "test": TEST, "valid": {"from": "train", "size": 20}}
SIZED = {"groups": ["exact", "sign"], "train": {**TRAIN, "size": 80}, "test": {**TEST, "size": 20}}
SHARED = {"groups": ["exact"], **{r: {**TRAIN, "share": s} for r, s in (("train", 0.5), ("valid", 0.2), ("test", 0.3))}}
REST = {"groups": ["exact", "sign"], "train": TRAIN, "test": {**TRAIN, "size": 20}, "valid": {**TRAIN, "share": 0.1}}
PLAIN = {key: value for key, value in BOTH.items() if key != "groups"} | {"sanitize": ["exact"]}
PLAIN_SHARES = {key: value for key, value in SHARED.items() if key != "groups"} | {"sanitize": ["exact"]}
TEST_FIRST = {"keep": ["test", "valid", "train"]}

CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "groups: keep": (BOTH, TEST_FIRST),
    "groups: keep, back": ({**BOTH, **TEST_FIRST}, {"keep": ["train", "valid", "test"]}),
    "groups: keep, only two": ({**SIZED, **TEST_FIRST, "train": TRAIN}, {"keep": ["train", "test"]}),
    "groups: keep, sizes": (
        {**SIZED, "train": {**TRAIN, "size": 150}, "test": {**TEST, "size": 36}},
        {"train": {**TRAIN, "size": 120}, **TEST_FIRST},
    ),
    "groups: protected": (BOTH, {"protected": ["bench"]}),
    "groups: not protected": ({**BOTH, "protected": ["bench"]}, {"protected": []}),
    "groups: within first": (BOTH, {"within": "first"}),
    "groups: within none": (BOTH, {"within": "none"}),
    "groups: conflicts drop": (BOTH, {"conflicts": "drop"}),
    "groups: conflicts majority": (SHARED, {"conflicts": "majority"}),
    "groups: conflicts trusted": (BOTH, {"conflicts": "trusted", "trusted": ["bench"]}),
    "groups: sanitize": (SHARED, {"sanitize": ["sign"]}),
    "groups: seed": (SIZED, {"seed": 1}),
    "groups: rules": (SHARED, {"groups": ["sign"]}),
    "groups: none": (SHARED, {"groups": []}),
    "groups: from": (SIZED, {"test": {**TRAIN, "size": 20}}),
    "groups: smaller": (SIZED, {"train": {**TRAIN, "size": 40}}),
    "groups: larger": (SIZED, {"test": {**TEST, "size": 30}}),
    "groups: larger than the rest gives": (REST, {"test": {**TRAIN, "size": 50}}),
    "groups: a larger share than the rest gives": (REST, {"valid": {**TRAIN, "share": 0.4}}),
    "groups: all": (SIZED, {"test": TEST}),
    "groups: all, first in keep": ({**SIZED, **TEST_FIRST, "train": TRAIN}, {"test": TEST}),
    "groups: size to share": (SIZED, {"train": {**TRAIN, "share": 0.25}}),
    "groups: other shares": (SHARED, {"train": {**TRAIN, "share": 0.3}, "test": {**TRAIN, "share": 0.5}}),
    "groups: a role less": (SHARED, {"valid": None}),
    "groups: a role more": (SIZED, {"valid": {**TRAIN, "size": 10}}),
    "plain: keep": (PLAIN, TEST_FIRST),
    "plain: protected": (PLAIN, {"protected": ["bench"]}),
    "plain: within": (PLAIN, {"within": "first"}),
    "plain: conflicts": ({**PLAIN, "sanitize": ["exact", "sign"]}, {"conflicts": "drop"}),
    "plain: trusted": (
        {**PLAIN, "conflicts": "trusted", "trusted": ["bench/test"], "sanitize": ["exact", "sign"]},
        {"trusted": ["web", "bench"]},
    ),
    "plain: sanitize": (PLAIN, {"sanitize": ["sign"]}),
    "plain: seed": (PLAIN, {"seed": 5}),
    "plain: size": (PLAIN, {"valid": {**TRAIN, "size": 30}}),
    "plain: from": (PLAIN, {"valid": {**TEST, "size": 20}}),
    "plain: shares": (PLAIN_SHARES, {"train": {**TRAIN, "share": 0.2}}),
    "plain: seed of shares": (PLAIN_SHARES, {"seed": 5}),
    "plain: groups": (PLAIN_SHARES, {"groups": ["exact"]}),
}


def spec_of(keys: dict[str, Any]) -> SplitPart:
    return SplitPart.model_validate({"name": "m", **keys})


def draw(spec: SplitPart, before: tuple[SplitPart, pl.DataFrame] | None = None) -> tuple[Drawn | None, pl.DataFrame]:
    previous = before and PreviousSplit(*before, IMAGES.select("image_id", "file_digest", "content_hash"))
    drawn = draw_groups(spec, IMAGES, {rule: CLUSTERS[rule] for rule in spec.groups}, previous) if spec.groups else None
    rows = drawn.rows if drawn else draw_roles(spec, IMAGES)
    return drawn, sanitize(spec, rows, CLUSTERS)


def kept(rows: pl.DataFrame) -> dict[bytes, str]:
    return dict(rows.filter("kept").select("image_id", "role").rows())


@pytest.mark.quick_cases(19)
@pytest.mark.parametrize(("keys", "change"), CHANGES.values(), ids=CHANGES)
def test_a_changed_setting_takes_effect(keys: dict[str, Any], change: dict[str, Any]) -> None:
    old, new = spec_of(keys), spec_of({**keys, **change})
    before = draw(old)[1]
    drawn, after = draw(new, (old, before))
    fresh, anew = draw(new)
    assert not after.equals(before)
    if drawn is None or fresh is None:
        assert after.equals(anew)
        return
    # As many images of each role and class as a new split has, and each group in the same one of competing roles.
    assert drawn.deviation.equals(fresh.deviation)
    roles, of_anew = kept(after), kept(anew)
    linked = pl.concat([CLUSTERS[rule] for rule in new.groups]).group_by("cluster_id").agg("image_id")["image_id"]
    assert all(len({roles[i] for i in group if i in roles}) < 2 for group in linked)
    if new.test is not None and new.test.size == "all":
        assert {i for i in of_anew if i >= name(160)} == {i for i in roles if i >= name(160)}
    # A policy drops what it means in the rows of the draw.
    assert after.equals(sanitize(new, drawn.rows, CLUSTERS))


def test_every_field_is_tried() -> None:
    changed = {key for _, change in CHANGES.values() for key in change}
    # Settings by attributes are tried in tests/builder/test_attribute_splits.py, those by issues in
    # test_issue_tables.py.
    assert changed == set(SplitPart.model_fields) - {"name", "order", "stratify", "drop_issues"}
    of_roles = {key for _, change in CHANGES.values() for role in ROLES for key in change.get(role) or ()}
    assert of_roles == {field.alias or key for key, field in RolePart.model_fields.items()}


@pytest.mark.parametrize(
    ("keys", "change", "moved"),
    [
        ({**BOTH, "valid": None}, TEST_FIRST, {name(i) for i in range(8)}),
        (SHARED, TEST_FIRST, set()),
        (SIZED, {"seed": 0, "within": "first"}, set()),
        (REST, {"valid": {**TRAIN, "share": 0.1}, "test": {**TRAIN, "size": 30}}, None),
    ],
    ids=["keep of two sources", "keep of one source", "policy", "size"],
)
def test_a_changed_setting_moves_no_more_than_it_must(
    keys: dict[str, Any], change: dict[str, Any], moved: set[bytes] | None
) -> None:
    old, new = spec_of(keys), spec_of({**keys, **change})
    first = draw_groups(old, IMAGES, {rule: CLUSTERS[rule] for rule in old.groups})
    drawn, _ = draw(new, (old, first.rows))
    assert drawn is not None
    was, now = kept(first.rows), kept(drawn.rows)
    lost = {image for image, role in was.items() if now.get(image) != role}
    if moved is not None:
        assert lost == moved & set(was)
    else:
        assert len(lost) == 10
        assert {was[image] for image in lost} == {"train"}
    assert drawn.moves is not None
    assert drawn.moves.forced == 0


@pytest.mark.parametrize(("key", "value"), [("within", "first"), ("conflicts", "drop")])
def test_a_policy_without_rules_is_refused(tmp_path: Any, key: str, value: str) -> None:
    asked = {"name": "m", "train": TRAIN, key: value}
    with pytest.raises(RecipeError, match=f"split 'm' has {key} = \"{value}\", but names no rules that it applies to"):
        recipe(tmp_path, {"uri": "train"}, split=[asked])
    recipe(tmp_path, {"uri": "train"}, split=[{**asked, "groups": ["exact"]}], dedup={"rules": ["exact"]})
    # Such a split of an older lake is still read.
    assert spec_of(asked).dropping_rules == ()
