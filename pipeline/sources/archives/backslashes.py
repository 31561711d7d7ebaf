r"""Backslashes in the names of archives: folder separators, second bytes of characters, or parts of a file name.

Some Windows tools write `train\cat\0.png`. Tar and zip only separate folders by "/", so unpacking tools disagree, and
read literally such a name has no folder, and the image no label. The rules here are:

- A backslash byte that is the second byte of a character is kept. Zip names that are not marked as UTF-8 may be in
  Shift-JIS, GBK or Big5, where this byte ends characters such as "表", "能" and "功".
- In a name without "/", every other backslash separates folders.
- In a name with both, backslashes separate folders if the archive was made on Windows, or if all such names of the
  archive have a backslash and two share the text before it. Otherwise the backslash is part of the file name, as in
  `we\ird.png` from Linux.
"""

from collections.abc import Callable, Iterable, Sequence

_BACKSLASH, _SLASH = b"\\", b"/"
# The smallest first byte of a two-byte character.
_FIRST_LEAD = 0x81
_HALF_WIDTH = ("\uff61", "\uff9f")


def with_slashes(raw: bytes, *, mixed: bool, encodings: Sequence[str], no_slashes: bool) -> bytes:
    """Replace the backslashes of a name that separate folders by slashes.

    Args:
        raw: the name as in the archive.
        mixed: whether backslashes also separate folders in a name that contains "/".
        encodings: the result of `encodings_of` for the names of the archive.
        no_slashes: whether no name of the archive contains "/".
    """
    if _BACKSLASH not in raw or (_SLASH in raw and not mixed):
        return raw
    halves = set() if _is_utf8(raw) else _second_halves(raw, encodings, no_slashes=no_slashes)
    name = bytearray(raw)
    for index, byte in enumerate(raw):
        if byte == _BACKSLASH[0] and index not in halves:
            name[index] = _SLASH[0]
    return bytes(name)


def encodings_of(names: Iterable[bytes], *, no_slashes: bool) -> tuple[str, ...]:
    """Find the two-byte encodings in which all names are valid; none if all names are UTF-8.

    Args:
        names: names that are not marked as UTF-8.
        no_slashes: whether no name contains "/". Then backslashes are needed as separators, and only the likeliest
            encoding is returned.
    """
    not_utf8 = [name for name in names if not _is_utf8(name)]
    found = tuple(encoding for encoding, fits in _ENCODINGS.items() if not_utf8 and all(map(fits, not_utf8)))
    return found[:1] if no_slashes else found


def are_separators(names: Iterable[str]) -> bool:
    """Return whether backslashes separate folders in names that also contain "/".

    They do if each of these names has a backslash, and two share the text before it.

    Args:
        names: names of an archive's files; read up to the first name with "/" and without a backslash.
    """
    folders: set[str] = set()
    shared = False
    for name in names:
        folder, backslash, _ = name.partition("\\")
        if "/" not in name:  # at the top, or written by a Windows tool: it decides nothing
            continue
        if not backslash:
            return False
        shared = shared or folder in folders
        if not shared:
            folders.add(folder)
    return shared


def _second_halves(raw: bytes, encodings: Sequence[str], *, no_slashes: bool) -> set[int]:
    """Find the positions of backslash bytes that are second bytes of characters."""
    if not encodings and not no_slashes:  # unknown encoding: in doubt, no folder name is split
        return {index + 1 for index in range(len(raw) - 1) if raw[index] >= _FIRST_LEAD}
    halves = set()
    for encoding in encodings:
        index = 0
        while index < len(raw):
            wide = raw[index] >= _FIRST_LEAD and _is_character(raw[index : index + 2], encoding)
            if wide and not (no_slashes and _looks_western(raw, index)):
                halves.add(index + 1)
            index += 2 if wide else 1
    return halves


def _looks_western(raw: bytes, index: int) -> bool:
    r"""Return whether the byte is the accented last letter of a word, as in `caf\x82\1.png`, not half a character."""
    before, after = raw[index - 1 : index], raw[index + 2 : index + 3]
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


def _fits_cp932(name: bytes) -> bool:
    """Return whether a name is Shift-JIS without half-width letters, which most Chinese text decodes to."""
    text = _decoded(name, "cp932")
    return text is not None and not any(_HALF_WIDTH[0] <= letter <= _HALF_WIDTH[1] for letter in text)


def _fits(encoding: str) -> Callable[[bytes], bool]:
    return lambda name: _decoded(name, encoding) is not None


# The likeliest first. Most Big5 text is also valid GBK, which splits it into the same characters.
_ENCODINGS = {"cp932": _fits_cp932, "gbk": _fits("gbk"), "big5": _fits("big5"), "shift_jis": _fits("shift_jis")}
