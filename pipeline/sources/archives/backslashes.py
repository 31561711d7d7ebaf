r"""Backslashes in the names of archives: separators of folders, halves of a character, or parts of a file's name.

Some Windows tools write `train\cat\0.png`. Tar and zip separate folders by "/" alone, so unpacking tools disagree, and
read literally such a name has no folder and the picture no label. This is decided so:

- A backslash byte that is the second half of a character stays. Zip names that are not marked as UTF-8 may be in
  Shift-JIS, GBK or Big5, where the byte ends characters such as "表", "能" and "功".
- In a name without "/", every other backslash separates folders.
- In a name with both, backslashes separate folders where the archive was made on Windows, or where all such names of
  the archive have a backslash and two share what stands before it. Else the backslash is a part of the name, as in a
  file `we\ird.png` that was made on Linux.
"""

from collections.abc import Callable, Iterable, Sequence

_BACKSLASH, _SLASH = b"\\", b"/"
# No byte below begins a character of two bytes.
_FIRST_LEAD = 0x81
_HALF_WIDTH = ("\uff61", "\uff9f")


def with_slashes(raw: bytes, *, mixed: bool, encodings: Sequence[str], alone: bool) -> bytes:
    """Replace the backslashes of a name that separate folders.

    Args:
        raw: the name as the archive has it.
        mixed: whether backslashes separate folders in a name that holds "/" too.
        encodings: what `encodings_of` finds for the archive's names.
        alone: whether no name of the archive holds "/".
    """
    if _BACKSLASH not in raw or (_SLASH in raw and not mixed):
        return raw
    halves = set() if _is_utf8(raw) else _second_halves(raw, encodings, alone=alone)
    name = bytearray(raw)
    for place, byte in enumerate(raw):
        if byte == _BACKSLASH[0] and place not in halves:
            name[place] = _SLASH[0]
    return bytes(name)


def encodings_of(names: Iterable[bytes], *, alone: bool) -> tuple[str, ...]:
    """Find the encodings of two bytes a character that fit all names; none where the names are UTF-8.

    Args:
        names: names that are not marked as UTF-8.
        alone: whether no name holds "/". Then backslashes are needed as separators, and only the likeliest encoding
            counts; else all do.
    """
    odd = [name for name in names if not _is_utf8(name)]
    found = tuple(encoding for encoding, fits in _FITS.items() if odd and all(map(fits, odd)))
    return found[:1] if alone else found


def are_separators(names: Iterable[str]) -> bool:
    """Tell whether backslashes separate folders in names that hold "/" too: each has one, and two share the folder.

    Args:
        names: names of an archive's files; read no further than to the first with "/" and without a backslash.
    """
    folders: set[str] = set()
    shared = False
    for name in names:
        folder, backslash, _ = name.partition("\\")
        if "/" not in name:  # at the top, or written by a tool of Windows: it says nothing
            continue
        if not backslash:
            return False
        shared = shared or folder in folders
        if not shared:
            folders.add(folder)
    return shared


def _second_halves(raw: bytes, encodings: Sequence[str], *, alone: bool) -> set[int]:
    """Find the backslash bytes that end a character."""
    if not encodings and not alone:  # of an encoding that is not known: in doubt no folder's name is cut in two
        return {place + 1 for place in range(len(raw) - 1) if raw[place] >= _FIRST_LEAD}
    halves = set()
    for encoding in encodings:
        place = 0
        while place < len(raw):
            wide = raw[place] >= _FIRST_LEAD and _is_character(raw[place : place + 2], encoding)
            if wide and not (alone and _looks_western(raw, place)):
                halves.add(place + 1)
            place += 2 if wide else 1
    return halves


def _looks_western(raw: bytes, place: int) -> bool:
    r"""Tell a word that ends in an accent, as `caf\x82\1.png` does, from a character of two bytes."""
    before, after = raw[place - 1 : place], raw[place + 2 : place + 3]
    return before.isalpha() and after.isascii() and after not in (b"", _BACKSLASH)


def _is_character(pair: bytes, encoding: str) -> bool:
    text = _decoded(pair, encoding)
    return text is not None and len(text) == 1


def _is_utf8(name: bytes) -> bool:
    return _decoded(name, "utf-8") is not None


def _decoded(name: bytes, encoding: str) -> str | None:
    try:
        return name.decode(encoding)
    except UnicodeDecodeError:
        return None


def _is_japanese(name: bytes) -> bool:
    """Tell Shift-JIS without the half-width letters that most Chinese text would be in it."""
    text = _decoded(name, "cp932")
    return text is not None and not any(_HALF_WIDTH[0] <= letter <= _HALF_WIDTH[1] for letter in text)


def _fits(encoding: str) -> Callable[[bytes], bool]:
    return lambda name: _decoded(name, encoding) is not None


# The likeliest first. What is Big5 mostly fits GBK, which cuts it into the same characters.
_FITS = {"cp932": _is_japanese, "gbk": _fits("gbk"), "big5": _fits("big5"), "shift_jis": _fits("shift_jis")}
