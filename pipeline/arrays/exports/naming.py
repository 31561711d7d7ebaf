"""Names of folders for class names, which are foreign text: safe everywhere, never the same for two."""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate

import xxhash

UNLABELLED = "_unlabelled"

# What stands for itself; at either end only letters and digits, so that no name is hidden, an option, or "..".
_PLAIN = re.compile(r"[A-Za-z0-9._-]")
_PLAIN_AT_ENDS = re.compile(r"[A-Za-z0-9]")
# Names that Windows keeps for devices, with whatever ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE | re.DOTALL)
# File systems take 255 bytes, but Windows 260 characters for the whole path.
_LONGEST = 100
_HEAD = 60


def folder_names(labels: Iterable[str]) -> dict[str, str]:
    """Name a folder for every label.

    ASCII letters, digits and, inside, `.`, `_` and `-` stay; every other byte of the label's UTF-8 becomes %XX, as in
    an address. Labels that differ only in case get their capitals as %XX too, as some file systems do not tell them
    apart. What becomes longer than 100 characters is cut, and ends in `%-` and the label's hash; the empty label is
    `%`. So no two labels share a folder, none is named as `UNLABELLED`, and none leads elsewhere.

    Args:
        labels: every label once.

    Returns:
        Folder by label.
    """
    listed = list(labels)
    folded = Counter(label.casefold() for label in listed)
    return {label: _name(label, capitals=folded[label.casefold()] == 1) for label in listed}


def _name(label: str, *, capitals: bool) -> str:
    last, device = len(label) - 1, _DEVICES.fullmatch(label) is not None
    spelled = [
        char if _stays(char, end=at in (0, last), capitals=capitals) and not (device and at == 0) else _hex(char)
        for at, char in enumerate(label)
    ]
    name = "".join(spelled) or "%"
    if len(name) <= _LONGEST:
        return name
    ends = accumulate(map(len, spelled))
    head = "".join(part for part, end in zip(spelled, ends, strict=True) if end <= _HEAD)
    return f"{head}%-{xxhash.xxh3_128_hexdigest(label.encode())}"


def _stays(char: str, *, end: bool, capitals: bool) -> bool:
    plain = _PLAIN_AT_ENDS if end else _PLAIN
    return plain.fullmatch(char) is not None and (capitals or not char.isupper())


def _hex(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode())
