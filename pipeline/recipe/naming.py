"""Infer the name of a dataset from its uri, and the split from a word in a name."""

import re
import unicodedata
from urllib.parse import unquote, urlsplit

import xxhash

# Words that name a split, and the name of the split in a lake.
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing", "t10k"), "test"),
}
_ENDINGS = re.compile(
    r"(\.(tar|tgz|tbz2?|txz|gz|bz2|xz|zst|zip|parquet|npz|npy|mat|csv|tsv|txt|json|bin|idx|idx[13]-ubyte))+$",
    re.IGNORECASE,
)
_GLOB = re.compile(r"[*?\[\]]+")
_MAX_LENGTH = 80
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")
# Words of file names that describe the content of a file, not its dataset.
GENERIC = {
    "data",
    "dataset",
    "datasets",
    "images",
    "image",
    "imgs",
    "img",
    "pictures",
    "photos",
    "raw",
    "files",
    "shard",
}
# If all words of a name are among these, the name of the folder above is used.
_UNINFORMATIVE = {"data", "raw", "images", "image", "imgs", "img"}
_IDX = {"idx", "idx1", "idx3", "ubyte", "labels"}


def words_of(name: str) -> list[str]:
    """Split a name into words in lower case: `trainX`, `x_train` and `train-00001` all contain the word train."""
    return re.split(r"[^a-z0-9]+", _CAMEL_CASE.sub("_", name).lower())


def split_in(name: str) -> str | None:
    """Return the split that a word of a file's name names: train, valid or test; None if there is none."""
    words = map(without_digits, words_of(_ENDINGS.sub("", name)))
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def without_digits(word: str) -> str:
    """Remove a year or number from the end of a word, as in `val2017`; `t10k` is kept."""
    return word if word in SPLITS else word.rstrip("0123456789")


def dataset_name(uri: str) -> str:
    """Infer the name of a dataset from its uri.

    The name is the last part of the uri with other words than a split or a word such as "data", without endings and
    without characters that are not allowed in a name: `digits` for `digits/train.csv`, `mnist` for
    `mnist/raw/train-images-idx3-ubyte.gz`.

    Args:
        uri: a path, an address or a pattern.

    Returns:
        A valid value of `dataset` in a recipe.
    """
    path = unquote(urlsplit(uri).path) if uri.startswith(("http://", "https://")) else uri.removeprefix("s3://")
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    named = (name for part in reversed(parts) if (name := _name(part)))
    return next(named, _valid_name(_ENDINGS.sub("", parts[-1])) if parts else "") or "images"


def _name(part: str) -> str:
    """Return the name that a part of a path gives; empty if it does not name the dataset."""
    stem = _ENDINGS.sub("", _GLOB.sub("-", part))
    pieces = re.split(r"([-_. ]+)", _CAMEL_CASE.sub("-", stem))
    words = [word.lower() for word in pieces[::2] if word]
    if not any(word in SPLITS or word in _IDX for word in words):
        return "" if all(word in _UNINFORMATIVE for word in words) else _valid_name(stem)
    kept = [word for word in pieces[::2] if word and not _is_uninformative(word.lower())]
    return _valid_name("-".join(kept))


def _is_uninformative(word: str) -> bool:
    known = word in SPLITS or word in _IDX or word in GENERIC or word in ("x", "of")
    return known or re.fullmatch(r"\d+(x\d+)?", word) is not None


def _valid_name(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", plain).strip("-_.")[:_MAX_LENGTH].rstrip("-_.")
    if name or not text.strip():
        return name
    # A name in another script: different names must stay different.
    return f"images-{xxhash.xxh32_hexdigest(unicodedata.normalize('NFC', text).encode('utf-8', 'replace'))}"
