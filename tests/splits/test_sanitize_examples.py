"""Policies by example, and settings of a split that would have no effect."""

from typing import Any

import polars as pl
import pytest

from pipeline.errors import SplitError
from pipeline.recipe import SplitPart
from pipeline.splits.draw import draw_roles
from pipeline.splits.sanitize import sanitize


def name(i: int) -> bytes:
    return i.to_bytes(16, "big")


def spec_of(**keys: Any) -> SplitPart:
    return SplitPart.model_validate({"name": "m", "train": {"from": "t"}, **keys})


def frame(*rows: tuple[str, str]) -> pl.DataFrame:
    """Lay rows of (role, label) out as `draw_roles` does; the id and rank of each is its number."""
    return pl.DataFrame(
        {
            "role": [role for role, _ in rows],
            "rank": range(len(rows)),
            "image_id": [name(i) for i in range(len(rows))],
            "label": [label for _, label in rows],
            "label_index": pl.Series([0] * len(rows), dtype=pl.Int32),
            "dataset": "a",
            "split": "t",
        }
    )


def clusters(*of: int) -> dict[str, pl.DataFrame]:
    return {"exact": pl.DataFrame({"image_id": [name(i) for i in range(len(of))], "cluster_id": of})}


def test_a_row_alone_in_the_role_that_keeps_it_stays_under_within_none() -> None:
    rows = frame(("train", "A"), ("test", "A"), ("test", "A"), ("valid", "A"), ("valid", "A"))
    result = sanitize(spec_of(sanitize="exact", within="none"), rows, clusters(1, 1, 1, 2, 2))
    assert result["kept"].to_list() == [True, False, False, False, False]
    assert result["dropped_for"].to_list() == [None, name(0), name(0), name(4), name(3)]


def test_rows_dropped_before_stay_dropped_and_are_ignored() -> None:
    before = frame(("train", "A"), ("test", "A")).with_columns(
        kept=pl.Series([False, True]),
        dropped_by=pl.Series(["sign", None]),
        dropped_for=pl.Series([name(9), None]),
        reason=pl.Series(["overlap", None]),
    )
    result = sanitize(spec_of(sanitize="exact"), before, clusters(1, 1))
    assert result.select("kept", "dropped_by", "dropped_for", "reason").equals(before.select(result.columns[4:]))


def test_without_a_rule_everything_is_kept() -> None:
    assert sanitize(spec_of(conflicts="drop"), frame(("train", "A"), ("test", "B")), {})["kept"].all()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"protected": "bnech"}, r"protects 'bnech', but no role draws from it. The roles draw from: a/t"),
        ({"conflicts": "trusted", "trusted": ["a/t", "a/x"]}, "trusts 'a/x', but no role draws from it"),
    ],
)
def test_a_setting_without_effect_is_an_error(keys: dict[str, Any], said: str) -> None:
    images = pl.DataFrame({"image_id": [name(1)], "label": "A", "dataset": "a", "split": "t"})
    with pytest.raises(SplitError, match=said):
        draw_roles(spec_of(**keys), images)


def test_issues_drop_by_the_first_kind_of_the_split_except_what_a_person_keeps() -> None:
    rows = pl.DataFrame(
        {
            "image_id": [b"a", b"b", b"c", b"d"],
            "role": ["train", "train", "test", "test"],
            "rank": [0, 1, 0, 1],
            "label": ["x"] * 4,
            "label_index": [0] * 4,
            "dataset": ["d", "d", "d", "safe"],
            "split": ["s"] * 4,
        }
    )
    issues = pl.DataFrame(
        {
            "image_id": [b"a", b"a", b"b", b"c", b"d"],
            "kind": ["dark", "blank", "dark", "blurry", "blank"],
        }
    )
    verdicts = pl.DataFrame({"image_id": [b"b"], "verdict": ["keep"]})
    part = {"name": "main", "drop_issues": ["blank", "dark"], "protected": ["safe"], "train": {"from": "s"}}
    spec = SplitPart.model_validate({**part, "test": {"from": "s"}})
    kept = sanitize(spec, rows, {}, {}, verdicts, issues)
    outcome = kept.select("image_id", "kept", "dropped_by", "dropped_for", "reason").rows()
    assert outcome == [
        (b"a", False, "blank", None, "issue"),
        (b"b", True, None, None, None),
        (b"c", True, None, None, None),
        (b"d", True, None, None, None),
    ]
