"""Names of rules: which thresholds they hold, whose pairs include whose, and what people call them elsewhere."""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

# Bits of a perceptual hash: the score of two hashes is the share of these that agree.
_BITS = 64

# What other tools call their methods, letters only, and the rule to write for it here.
_ELSEWHERE = {
    "hamming:6": (
        "phash perceptual perceptualhash perceptualhashing imagehash imagehashing ahash averagehash whash wavelethash "
        "blockhash colorhash pdq pdqhash dct dcthash hammingdistance"
    ),
    "hamming:6:dhash": "dhash differencehash gradienthash gradient",
    "exact": (
        "md md5 sha sha1 sha256 sha512 crc crc32 crc32c xxh xxh3 xxhash blake blake2 blake3 hash filehash checksum "
        "digest identical identity equal same bytes pixels contenthash"
    ),
    "photo:0.5": (
        "ssim msssim psnr cnn orb sift surf akaze near nearduplicate nearduplicates neardup nearexact fuzzy similar "
        "similarity visual photograph imagededup"
    ),
    "embedding:clip:0.9": (
        "clip openclip siglip dino dinov resnet vit mobilenet efficientnet fastdup feature features vector vectors "
        "embeddings semantic deep faiss"
    ),
    "cosine:0.95": "correlation pearson ncc zncc mse rmse mae l1 l2 euclidean cos cosinesimilarity",
}
_MEANINGS = {
    "hamming": "perceptual hashes that differ in a few of 64 bits",
    "exact": "equal pixels",
    "photo": "a photograph found again, cropped, recoloured or compressed",
    "embedding": "vectors that an [[embedding]] of the recipe brings",
    "cosine": "correlation of the pixels",
}
_BY_NAME = {word: rule for rule, words in _ELSEWHERE.items() for word in words.split()}


class Threshold(NamedTuple):
    """What a rule with a threshold compares, and the least score of its pairs.

    Attributes:
        compares: the rule without its threshold, such as "photo", "embedding:clip" or "hamming:dhash". The pairs of
            two rules that are equal in this have equal scores.
        least: every pair has this score or a higher one.
    """

    compares: str
    least: float


def threshold_of(rule: str) -> Threshold | None:
    """Read the threshold from the name of a rule; None for a rule without one, and for a name that is no rule."""
    family, _, parameter = rule.partition(":")
    try:
        if family == "hamming":
            distance, _, kind = parameter.partition(":")
            return Threshold(f"hamming:{kind}" if kind else family, 1 - int(distance) / _BITS)
        if family in ("cosine", "photo"):
            return Threshold(family, float(parameter))
        if family == "embedding":
            name, _, least = parameter.rpartition(":")
            return Threshold(f"embedding:{name}", float(least))
    except ValueError:
        return None
    return None


def rule_with_pairs_of(rule: str, held: Iterable[str]) -> str | None:
    """Find the rule whose pairs include those of another rule.

    The pairs of photo:0.7 are those of photo:0.6 with a score of 0.7 or more.

    Args:
        rule: as a recipe or a person spells it.
        held: rules whose pairs are stored.

    Returns:
        The rule itself if it is held; else the held one that differs only in a lower threshold, of several the one with
        the highest; else None.
    """
    known = set(held)
    if rule in known:
        return rule
    wanted = threshold_of(rule)
    looser = [
        (found.least, name)
        for name in known
        if wanted
        and (found := threshold_of(name))
        and found.compares == wanted.compares
        and found.least <= wanted.least
    ]
    return max(looser)[1] if looser else None


def stricter_rule(rule: str, held: Collection[str]) -> str | None:
    """Find the held rule that differs from a rule only in a higher threshold, of several the one with the lowest."""
    wanted = threshold_of(rule)
    stricter = [
        (found.least, name)
        for name in held
        if wanted and (found := threshold_of(name)) and found.compares == wanted.compares and found.least > wanted.least
    ]
    return min(stricter)[1] if stricter else None


def rule_known_as(name: str) -> tuple[str, str] | None:
    """Find the rule for what other tools call their method.

    Args:
        name: such as "phash", "pHash:8", "MD5" or "ssim".

    Returns:
        The rule to write and what it does, or None.
    """
    family, _, parameter = name.lower().partition(":")
    plain = re.sub(r"[^a-z0-9]", "", family)
    rule = _BY_NAME.get(plain) or _BY_NAME.get(re.sub(r"[0-9]", "", plain))
    if rule is None:
        return None
    kind, _, rest = rule.partition(":")
    if kind == "hamming" and re.fullmatch(r"[0-9]|1[0-2]", parameter):
        rule = f"hamming:{parameter}{rest[1:]}"
    return rule, _MEANINGS[kind]
