"""The registry of rules: families, meanings, which rule's pairs include another's, and the names in other tools."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedup import rules as implemented
from pipeline.dedup.rules import parse_rule
from pipeline.errors import RecipeError
from pipeline.recipe.rules import (
    FAMILIES,
    rule_known_as,
    rule_meaning,
    rule_order,
    rule_with_pairs_of,
    stricter_rule,
    threshold_of,
)

STEPS = st.integers(0, 12)
TEMPLATES = st.sampled_from(
    ["hamming:{}", "hamming:{}:dhash", "cosine:{}", "photo:{}", "photo:{}:upright", "embedding:a:{}", "embedding:b:{}"]
)


def spelled(family: str, step: int) -> str:
    """Spell a rule that is stricter, the higher the step."""
    return family.format(12 - step if family.startswith("hamming") else f"{0.8 + step / 100:.2f}")


RULES = st.builds(spelled, TEMPLATES, STEPS)


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


def test_a_threshold_that_no_score_reaches_is_none() -> None:
    for rule in ("cosine:95", "cosine:1e400", "cosine:nan", "photo:60", "hamming:-1", "embedding:a:2"):
        assert threshold_of(rule) is None
        assert rule_with_pairs_of(rule, ["cosine:0.9", "photo:0.5", "hamming:6", "embedding:a:0.9"]) is None


def test_every_family_is_registered_and_implemented() -> None:
    listed = (implemented._BY_FILE, implemented._BY_KEYS, implemented._BY_COMPARISON)  # noqa: SLF001 - all must agree
    assert {name for families in listed for name in families} == set(FAMILIES)
    for name, family in FAMILIES.items():
        assert parse_rule(family.example).name.partition(":")[0] == name == family.spelling.partition(":")[0]
        assert rule_meaning(family.example)


@pytest.mark.parametrize(
    ("rule", "meaning"),
    [
        ("file", "equal bytes of the encoded files"),
        ("exact", "equal pixels and equal shape"),
        ("maxpool:4", "equal brightest pixels in every 4 x 4 block"),
        ("hamming:6", "64-bit perceptual hashes that differ in at most 6 bits"),
        ("hamming:6:dhash", "64-bit perceptual hashes that differ in at most 6 bits (gradient hashes)"),
        ("cosine:0.95", "correlation between the pixels of 0.95 or above"),
        ("embedding:clip:0.9", "cosine of 0.9 or above between the vectors of the embedding clip"),
        ("nothing:1", ""),
    ],
)
def test_the_meaning_of_a_rule_contains_its_parameter(rule: str, meaning: str) -> None:
    assert rule_meaning(rule) == meaning


def test_rules_are_ordered_by_family_then_name_and_unknown_ones_come_last() -> None:
    rules = ["exact", "sign", "maxpool:2", "hamming:6", "cosine:0.9", "photo:0.5", "photo:0.6", "embedding:a:0.9", "a"]
    assert sorted(rules[4:] + rules[:4], key=rule_order) == rules


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
def test_methods_of_other_tools_suggest_a_rule(name: str, rule: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_rule(name)
    assert f"did you mean '{rule}'" in str(caught.value)
    known = "Known rules: file, exact, sign, maxpool:k, hamming:d, cosine:t, photo:t, embedding:NAME:t."
    assert known in str(caught.value)
    parse_rule(rule)


def test_unknown_names_suggest_no_rule() -> None:
    assert rule_known_as("zebra") is None
    assert rule_known_as("") is None
