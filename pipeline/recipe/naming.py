"""Names that a recipe need not say: of a dataset by its uri, and of a split by a word in a name."""

import re
import unicodedata
from urllib.parse import unquote, urlsplit

import xxhash

# Words that name a split, and how the split is called here.
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing", "t10k"), "test"),
}
_ENDINGS = re.compile(
    r"(\.(tar|tgz|tbz2?|txz|gz|bz2|xz|zst|zip|parquet|npz|npy|mat|csv|tsv|txt|json|bin|idx|idx[13]-ubyte))+$",
    re.IGNORECASE,
)
_PATTERN = re.compile(r"[*?\[\]]+")
_LONGEST = 80
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
# Words of file names that say what a file holds, and not of which dataset it is.
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
# Of these, a folder or file that is called nothing else gets the name of the folder around it.
_NAMELESS = {"data", "raw", "images", "image", "imgs", "img"}
_IDX = {"idx", "idx1", "idx3", "ubyte", "labels"}


def words_of(name: str) -> list[str]:
    """Cut a name into words, in lower case: `trainX`, `x_train` and `train-00001` all have the word train."""
    return re.split(r"[^a-z0-9]+", _HUMP.sub("_", name).lower())


def split_in(name: str) -> str | None:
    """Tell the split that a word of a file's name says: train, valid or test; None where none does."""
    words = map(without_digits, words_of(_ENDINGS.sub("", name)))
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def without_digits(word: str) -> str:
    """Take a year or number from the end of a word, as in `val2017`; `t10k` is a word."""
    return word if word in SPLITS else word.rstrip("0123456789")


def dataset_name(uri: str) -> str:
    """Name a dataset by its uri.

    The name is the last part of the uri that says more than a split or a word such as "data", without endings and
    without characters that a dataset's name cannot have: `digits/train.csv` is `digits`, `train-images-idx3-ubyte.gz`
    in `mnist/raw` is `mnist`.

    Args:
        uri: a path, an address or a pattern.

    Returns:
        A name that `dataset` of a recipe takes.
    """
    path = unquote(urlsplit(uri).path) if uri.startswith(("http://", "https://")) else uri.removeprefix("s3://")
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    named = (name for part in reversed(parts) if (name := _name(part)))
    return next(named, _spelled(_ENDINGS.sub("", parts[-1])) if parts else "") or "images"


def _name(part: str) -> str:
    """Spell a part of a path as a name; empty where it says nothing of the dataset."""
    stem = _ENDINGS.sub("", _PATTERN.sub("-", part))
    pieces = re.split(r"([-_. ]+)", _HUMP.sub("-", stem))
    words = [word.lower() for word in pieces[::2] if word]
    if not any(word in SPLITS or word in _IDX for word in words):
        return "" if all(word in _NAMELESS for word in words) else _spelled(stem)
    kept = [word for word in pieces[::2] if word and not _says_nothing(word.lower())]
    return _spelled("-".join(kept))


def _says_nothing(word: str) -> bool:
    known = word in SPLITS or word in _IDX or word in GENERIC or word in ("x", "of")
    return known or re.fullmatch(r"\d+(x\d+)?", word) is not None


def _spelled(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", plain).strip("-_.")[:_LONGEST].rstrip("-_.")
    if name or not text.strip():
        return name
    # A name in another script: two of them must not become one.
    return f"images-{xxhash.xxh32_hexdigest(unicodedata.normalize('NFC', text).encode('utf-8', 'replace'))}"
