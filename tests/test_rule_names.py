"""Names of rules: whose pairs include whose, and what other tools call their methods."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedup.rules import parse_rule
from pipeline.errors import RecipeError
from pipeline.recipe.rules import rule_known_as, rule_with_pairs_of, stricter_rule, threshold_of

STEPS = st.integers(0, 12)
FAMILIES = st.sampled_from(
    ["hamming:{}", "hamming:{}:dhash", "cosine:{}", "photo:{}", "embedding:a:{}", "embedding:b:{}"]
)


def spelled(family: str, step: int) -> str:
    """Spell a rule that is stricter, the higher the step."""
    return family.format(12 - step if family.startswith("hamming") else f"{0.8 + step / 100:.2f}")


RULES = st.builds(spelled, FAMILIES, STEPS)


@given(RULES, st.lists(RULES, max_size=6))
def test_the_pairs_of_a_rule_are_among_those_of_the_nearest_looser_one(rule: str, held: list[str]) -> None:
    found, mine = rule_with_pairs_of(rule, held), threshold_of(rule)
    assert mine is not None
    same = [one for name in held if (one := threshold_of(name)) is not None and one.compares == mine.compares]
    looser = [one for one in same if one.least <= mine.least]
    assert (found is None) == (not looser)
    if found is not None:
        assert found in held
        assert threshold_of(found) == max(looser, key=lambda one: one.least)
    above = stricter_rule(rule, held)
    assert (above is None) == (not any(one.least > mine.least for one in same))


@given(RULES)
def test_thresholds_are_those_of_the_rules(rule: str) -> None:
    if rule == "cosine:0.80" or not rule.startswith("embedding"):
        comparison, mine = parse_rule(rule).comparison, threshold_of(rule)
        assert comparison is not None
        assert mine is not None
        assert comparison.least == mine.least


@pytest.mark.parametrize(
    "name", ["exact", "sign", "maxpool:4", "photo", "photo:x", "hamming:", "embedding:a", "nothing"]
)
def test_what_has_no_threshold_has_only_its_own_pairs(name: str) -> None:
    assert threshold_of(name) is None
    assert rule_with_pairs_of(name, ["exact", "photo:0.1", "hamming:12", "embedding:a:0.1"]) == (
        "exact" if name == "exact" else None
    )


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("phash", "hamming:6"),
        ("pHash:8", "hamming:8"),
        ("p-hash", "hamming:6"),
        ("phash:64", "hamming:6"),
        ("dhash", "hamming:6:dhash"),
        ("dhash:4", "hamming:4:dhash"),
        ("ahash", "hamming:6"),
        ("whash", "hamming:6"),
        ("perceptual", "hamming:6"),
        ("md5", "exact"),
        ("SHA-256", "exact"),
        ("sha1", "exact"),
        ("crc32", "exact"),
        ("ssim", "photo:0.5"),
        ("cnn", "photo:0.5"),
        ("clip", "embedding:clip:0.9"),
        ("dinov2", "embedding:clip:0.9"),
        ("pearson", "cosine:0.95"),
        ("Exact", "exact"),
        ("PHOTO:0.7", "photo:0.7"),
    ],
)
def test_methods_of_other_tools_hint_at_the_rule_to_write(name: str, rule: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_rule(name)
    assert f"did you mean '{rule}'" in str(caught.value)
    assert "Known rules: exact, sign, maxpool:k, hamming:d, cosine:t, photo:t, embedding:NAME:t." in str(caught.value)
    parse_rule(rule)


def test_what_nobody_calls_a_rule_hints_at_none() -> None:
    assert rule_known_as("zebra") is None
    assert rule_known_as("") is None
