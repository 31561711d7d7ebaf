"""The families of duplicate rules: how their names are written, what they mean, and how their thresholds compare.

`FAMILIES` is the registry: `dedup/rules/` implements each family, error messages list it, and the report explains it.
A test checks that every family is implemented.
"""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

# Bits of a perceptual hash. The score of two hashes is the share of bits in which they agree.
_HASH_BITS = 64


class Family(NamedTuple):
    """A family of rules.

    Attributes:
        spelling: how a rule of the family is written in a recipe.
        meaning: when two images are duplicates under the rule. Placeholders: {name}, the parameter before its last
            colon, and {value}, the parameter after it; or {value} for the whole parameter if it has no colon.
        example: a rule of the family, suggested in error messages for the names below.
        other_names: what other tools call methods of this kind: lower-case letters and digits, separated by spaces.
    """

    spelling: str
    meaning: str
    example: str
    other_names: str = ""


# The strictest family first.
FAMILIES = {
    "file": Family(
        "file",
        "equal bytes of the encoded files",
        "file",
        "filehash fileequal samefile",
    ),
    "exact": Family(
        "exact",
        "equal pixels and equal shape",
        "exact",
        "md md5 sha sha1 sha256 sha512 crc crc32 crc32c xxh xxh3 xxhash blake blake2 blake3 hash checksum "
        "digest identical identity equal same bytes pixels contenthash",
    ),
    "sign": Family("sign", "every pixel on the same side of mid-gray: 127 and below, or 128 and above", "sign"),
    "maxpool": Family("maxpool:k", "equal brightest pixels in every {value} x {value} block", "maxpool:4"),
    "hamming": Family(
        "hamming:d",
        "64-bit perceptual hashes that differ in at most {value} bits",
        "hamming:6",
        "phash perceptual perceptualhash perceptualhashing imagehash imagehashing ahash averagehash whash wavelethash "
        "blockhash colorhash pdq pdqhash dct dcthash hammingdistance",
    ),
    "cosine": Family(
        "cosine:t",
        "correlation between the pixels of {value} or above",
        "cosine:0.95",
        "correlation pearson ncc zncc mse rmse mae l1 l2 euclidean cos cosinesimilarity",
    ),
    "photo": Family(
        "photo:t",
        "the same photograph, perhaps shifted, cropped, mirrored, turned or recoloured, with a score of {value} or "
        "above",
        "photo:0.5",
        "ssim msssim psnr cnn orb sift surf akaze near nearduplicate nearduplicates neardup nearexact fuzzy similar "
        "similarity visual photograph imagededup",
    ),
    "embedding": Family(
        "embedding:NAME:t",
        "cosine of {value} or above between the vectors of the embedding {name}",
        "embedding:clip:0.9",
        "clip openclip siglip dino dinov resnet vit mobilenet efficientnet fastdup feature features vector vectors "
        "embeddings semantic deep faiss",
    ),
}
# An entry of `groups` that begins so names an attribute.
_ATTRIBUTE = "attr:"
_GRADIENT_HASH = "hamming:6:dhash"
_GRADIENT_HASH_NAMES = "dhash differencehash gradienthash gradient"
_BY_OTHER_NAME = {
    **{name: family.example for family in FAMILIES.values() for name in family.other_names.split()},
    **dict.fromkeys(_GRADIENT_HASH_NAMES.split(), _GRADIENT_HASH),
}


def attribute_of(rule: str) -> str | None:
    """Return the attribute that an entry of `groups` names, such as patient in attr:patient; None for a rule."""
    return rule.removeprefix(_ATTRIBUTE) if rule.startswith(_ATTRIBUTE) else None


def rule_order(rule: str) -> tuple[int, str]:
    """Sort key for rules: the strictest family first, then by name."""
    family = rule.partition(":")[0]
    return (list(FAMILIES).index(family) if family in FAMILIES else len(FAMILIES), rule)


def rule_meaning(rule: str) -> str:
    """Describe when two images are duplicates under a rule; an empty string for an unknown family."""
    family, _, parameter = rule.partition(":")
    if attribute := attribute_of(rule):
        return f"equal values of the attribute {attribute}"
    if family not in FAMILIES:
        return ""
    if family == "hamming":
        bits, _, kind = parameter.partition(":")
        return FAMILIES[family].meaning.format(value=bits) + (" (gradient hashes)" if kind else "")
    if family == "photo":
        least, _, kind = parameter.partition(":")
        meaning = FAMILIES[family].meaning.format(value=least)
        return meaning.replace("mirrored, turned", "mirrored") if kind else meaning
    name, _, value = parameter.rpartition(":")
    return FAMILIES[family].meaning.format(name=name, value=value)


class Threshold(NamedTuple):
    """What a rule with a threshold compares, and the minimum score of its pairs.

    Attributes:
        compares: the rule without its threshold, such as "photo", "photo:upright", "embedding:clip" or
            "hamming:dhash". If two rules are equal in this, the pairs of both have equal scores.
        least: every pair has this score or a higher one.
    """

    compares: str
    least: float


def threshold_of(rule: str) -> Threshold | None:
    """Parse the threshold in the name of a rule; None if the rule has none or the name is not a rule.

    A score is from -1 to 1. A rule with a threshold above it, such as cosine:95, would never find a pair.
    """
    found = _threshold(rule)
    return found if found and -1 <= found.least <= 1 else None


def is_unreachable(rule: str) -> bool:
    """Return whether the name of a rule has a threshold that no score can reach, such as cosine:95."""
    return _threshold(rule) is not None and threshold_of(rule) is None


def _threshold(rule: str) -> Threshold | None:
    family, _, parameter = rule.partition(":")
    try:
        if family == "hamming":
            distance, _, kind = parameter.partition(":")
            return Threshold(f"hamming:{kind}" if kind else family, 1 - int(distance) / _HASH_BITS)
        if family == "cosine":
            return Threshold(family, float(parameter))
        if family == "photo":
            least, _, kind = parameter.partition(":")
            return Threshold(f"photo:{kind}" if kind else family, float(least))
        if family == "embedding":
            name, _, least = parameter.rpartition(":")
            return Threshold(f"embedding:{name}", float(least))
    except ValueError:
        return None
    return None


def rule_with_pairs_of(rule: str, held: Iterable[str]) -> str | None:
    """Find a stored rule whose pairs include all pairs of another rule.

    The pairs of photo:0.7 are the pairs of photo:0.6 with a score of 0.7 or more.

    Args:
        rule: the name of a rule.
        held: rules whose pairs are stored.

    Returns:
        The rule itself if it is stored; else the stored rule that differs only in a lower threshold (if there are
        several, the one with the highest); else None.
    """
    stored = set(held)
    if rule in stored:
        return rule
    wanted = threshold_of(rule)
    looser = [(least, name) for least, name in _comparable(wanted, stored) if wanted and least <= wanted.least]
    return max(looser)[1] if looser else None


def stricter_rule(rule: str, held: Collection[str]) -> str | None:
    """Find the stored rule that differs only in a higher threshold; if there are several, the one with the lowest."""
    wanted = threshold_of(rule)
    stricter = [(least, name) for least, name in _comparable(wanted, held) if wanted and least > wanted.least]
    return min(stricter)[1] if stricter else None


def _comparable(wanted: Threshold | None, held: Iterable[str]) -> list[tuple[float, str]]:
    """List the rules that compare the same as a threshold's rule, each with its own threshold."""
    found = [(threshold_of(name), name) for name in held]
    return [(one.least, name) for one, name in found if one and wanted and one.compares == wanted.compares]


def rule_known_as(name: str) -> tuple[str, str] | None:
    """Find the rule for a method by the name that other tools use.

    Args:
        name: such as "phash", "pHash:8", "MD5" or "ssim".

    Returns:
        The rule to write and its meaning, or None.
    """
    family, _, parameter = name.lower().partition(":")
    plain = re.sub(r"[^a-z0-9]", "", family)
    rule = _BY_OTHER_NAME.get(plain) or _BY_OTHER_NAME.get(re.sub(r"[0-9]", "", plain))
    if rule is None:
        return None
    kind, _, rest = rule.partition(":")
    if kind == "hamming" and re.fullmatch(r"[0-9]|1[0-2]", parameter):
        rule = f"hamming:{parameter}{rest[1:]}"
    return rule, rule_meaning(rule)
