"""A sample of a WebDataset: the files that share a name, and the labels among them.

By the standard, files of one sample share their name up to its first dot. Names with more dots (`v1.1.png`, `v1.1.cls`,
`v1.2.png`, `v1.2.cls`) are one sample by that rule, so a picture takes the label whose name is the longest beginning of
its own, dot by dot: `v1.1.cls` for `v1.1.png` and `v1.1.left.png`, `v1.cls` for both where there is no `v1.1.cls`; also
`v1.1.png.cls` for `v1.1.png`.

A label is looked for in this order: a file with a usual ending (`.cls`, `.label`, `.class`, ..., also `.cls.txt`), a
usual key of the `.json`, a `.txt`, a file `.index`. A file that holds a label and gives it to no picture is a reject.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from pipeline.errors import SourceError
from pipeline.shard import Refused

# What files and keys of JSON that hold a label are called, without "_" and "-": the first that is there counts.
_NAMES = ("classname", "labelname", "clsname", "categoryname", "targetname")
_NUMBERS = ("classid", "labelid", "clsid", "categoryid", "targetid", "classidx", "labelidx", "classindex", "labelindex")
_ENDINGS = ("cls", "label", "class", "labels", "target", "category", "y", *_NAMES, *_NUMBERS)
_SURE_KEYS = ("label", "cls", "class")
_KEYS = (*_SURE_KEYS, "labels", "target", "category", "y", *_NAMES, *_NUMBERS)
# Words in names of files and keys that may hold a label and are not called so.
_HINTS = frozenset(["cls", "label", "labels", "class", "classes", "target", "targets", "category", "categories"])
_WORDS, _HUMP = re.compile(r"[a-z]+"), re.compile(r"(?<=[a-z])(?=[A-Z])")
# What may hold a label, in the order in which it counts.
_KINDS = ("asked", "file", "json", "text", "unsure", "index")
_INDEX = "index"
_TEXT, _JSON = ("txt", "text"), "json"
_ARRAYS = ("npy", "npz", "pt", "pth", "pkl", "pickle", "pyd", "ten", "mp", "msg", "msgpack", "cbor")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# A text of so many words is a caption, and no name of a class.
_CAPTION_WORDS = 6
# Path up to the first dot of the name, ending.
_NAME = re.compile(r"((?:.*/|)[^/.]+)\.([^/]*)", re.DOTALL)

_STRANGER = "a label, but no picture has its name"

TextKind = Literal["label", "caption", "unclear"]


class Member(NamedTuple):
    """One file of the archive.

    Attributes:
        path: its name, cleaned.
        key: what it shares with the files of its sample by the standard: the path up to the first dot of the name.
        ending: what stands behind that dot, in lower case; empty where the name begins with one, or has none.
        data: its content; empty where it is refused or not needed.
        size: bytes of content.
        refused: why it is not read, or None.
    """

    path: str
    key: str
    ending: str
    data: bytes
    size: int
    refused: Refused | None = None


class _Kind(NamedTuple):
    """What an ending says: see `Carrier`."""

    stem: str
    kind: str
    rank: int


class Carrier(NamedTuple):
    """A file that may hold a label.

    Attributes:
        member: the file.
        stem: its name behind the first dot and before what `kind` says, in lower case.
        kind: what it is: "asked" (named by the recipe), "file", "json", "unsure" (called almost like a label, or an
            array), "text" or "index".
        rank: the smaller, the more usual its ending.
    """

    member: Member
    stem: str
    kind: str
    rank: int = 0


class Labelled(NamedTuple):
    """A picture and its label.

    Attributes:
        picture: the picture.
        label: its label, or None.
        fault: why the label cannot be read; empty where it can, or where there is none.
    """

    picture: Member
    label: str | None
    fault: str = ""


def member_of(path: str, data: bytes, size: int, refused: Refused | None = None) -> Member:
    """Make a member of what is known of a file."""
    found = _NAME.fullmatch(path)
    if found is None:
        return Member(path, path, "", data, size, refused)
    return Member(path, found[1], found[2].lower(), data, size, refused)


def may_hold_label(asked: str | None, member: Member) -> bool:
    """Tell whether a file may hold a label, by its name."""
    return bool(_kinds_of(asked, member.ending))


def carriers_of(asked: str | None, sample: Sequence[Member], pictures: Sequence[Member]) -> list[Carrier]:
    """Find the files of a sample that may hold a label.

    Args:
        asked: the recipe's `labels`: an ending or a key of the JSON; empty for no label, None for the usual ones.
        sample: its files.
        pictures: those that may be pictures: `1.label.cls` is the label of `1.label.png`, or else of all of the sample.
    """
    found = [(member, kinds) for member in sample if (kinds := _kinds_of(asked, member.ending))]
    if all(len(kinds) == 1 for _, kinds in found):
        return [Carrier(member, *kinds[0]) for member, kinds in found]
    reached = {stem for picture in pictures for stem in _chain(picture)}
    return [
        Carrier(member, *next((kind for kind in kinds if kind.stem in reached), kinds[-1])) for member, kinds in found
    ]


@lru_cache(2**12)
def _kinds_of(asked: str | None, ending: str) -> tuple[_Kind, ...]:
    """Read an ending: what the file is if a picture has its name, and last what it is otherwise."""
    front, _, last = ending.rpartition(".")
    if asked is not None:
        wanted = asked.lower().removeprefix(".")
        if wanted and f".{ending}".endswith(f".{wanted}"):
            return (_Kind(ending[: -len(wanted)].removesuffix("."), "asked", 0),)
        return (_Kind(front, "json", 0),) if wanted and last == _JSON else ()
    return tuple(_usual_kinds(front, last))


def _usual_kinds(front: str, last: str) -> Iterator[_Kind]:
    above, _, word = front.rpartition(".")
    named = _ENDINGS.index(_plain(word)) if _plain(word) in _ENDINGS else None
    if _plain(last) in _ENDINGS:
        rank = _ENDINGS.index(_plain(last))
        yield _Kind(front, "file", rank)
        if named is not None:
            yield _Kind(above, "file", rank)
    elif last == _JSON or last in _TEXT:
        yield _Kind(front, "json" if last == _JSON else "text", 0)
        if named is not None:
            yield _Kind(above, "json" if last == _JSON else "file", named)
    elif last in _ARRAYS and named is not None:
        yield _Kind(above, "unsure", named)
    elif last == _INDEX:
        yield _Kind(front, "index", 0)
    elif not _HINTS.isdisjoint(_WORDS.findall(last)):
        yield _Kind(front, "unsure", 0)


def pictures_of(asked: str, sample: Sequence[Member], stems: Collection[str]) -> list[Member]:
    """Find the files with the ending that the recipe names for pictures.

    Args:
        asked: the ending.
        sample: the files of a sample.
        stems: those of its labels: where names have several dots, the ending begins behind one of them.
    """
    wanted = asked.lower().removeprefix(".")
    exact = [member for member in sample if member.ending == wanted]
    ends = [member for member in sample if member.ending.endswith(f".{wanted}")]
    near = [member for member in ends if member.ending.removesuffix(f".{wanted}") in stems]
    return exact or near or ends


def has_label(pictures: Sequence[Member], carriers: Sequence[Carrier]) -> bool:
    """Tell whether a picture has a label beside it, by which a WebDataset is told from a tar of class folders.

    In class folders a `.txt`, or a JSON with a key that is not called just label, cls or class, may be anything.

    Args:
        pictures: those of a sample.
        carriers: what may hold a label.
    """
    stems = {stem for picture in pictures for stem in _chain(picture)}
    beside = [carrier for carrier in carriers if carrier.stem in stems]
    if any(carrier.kind == "file" for carrier in beside):
        return True
    values = [_known_values(carrier) for carrier in beside if carrier.kind == "json"]
    if any("/" in picture.path for picture in pictures):
        return any(_plain(_label_key(held, None) or "") in _SURE_KEYS for held in values)
    return any(carrier.kind in ("text", "unsure") for carrier in beside) or any(
        _label_key(held, None) or _unsure_keys(held) for held in values
    )


def text_kind(texts: Sequence[str]) -> TextKind:
    """Tell what the `.txt` files of an archive are, by some of them: labels of one word, or captions of many."""
    counts = [len(text.split()) for text in texts if text.strip()]
    letters = [sum(any(map(str.isalpha, word)) for word in text.split()) for text in texts]
    if max(letters, default=0) >= _CAPTION_WORDS:
        return "caption"
    return "label" if counts and max(counts) == 1 else "unclear"


def labels_in(
    asked: str | None, pictures: Sequence[Member], carriers: Sequence[Carrier], text: Callable[[], TextKind]
) -> tuple[list[Labelled], list[tuple[Member, str]]]:
    """Read the labels of a sample's pictures.

    Args:
        asked: the recipe's `labels`.
        pictures: the sample's pictures.
        carriers: its files that may hold a label.
        text: tells what the archive's `.txt` files are; called only where a picture has no other label.

    Returns:
        The pictures with their labels, and the files whose label is not read, each with why.
    """
    by_stem: dict[str, list[Carrier]] = {}
    for carrier in sorted(carriers, key=attrgetter("rank")) if len(carriers) > 1 else carriers:
        by_stem.setdefault(carrier.stem, []).append(carrier)
    read = [_labelled(asked, picture, by_stem, text) for picture in pictures]
    found, givers = [item for item, _ in read], [giver for _, giver in read if giver]
    if len(givers) == len(carriers) == 1:
        return found, []
    given = set(map(id, givers))
    left = [carrier for carrier in carriers if id(carrier) not in given]
    lost = [(carrier, why) for carrier, why in _losses(asked, left, found, givers) if why]
    strangers = [carrier for carrier, why in lost if why == _STRANGER]
    if strangers:
        fault = f"its label may be in {strangers[0].member.path}, which has another name. {_hint(strangers[0])}"
        found = [item._replace(fault=item.fault or fault) if item.label is None else item for item in found]
    return found, [(carrier.member, f"{why}. {_hint(carrier)}") for carrier, why in lost]


def whole_samples(asked: str | None, sample: Sequence[Member], pictures: Sequence[Member]) -> int:
    """Tell how many of the first files of a long sample are samples of their own, whose names have several dots.

    Args:
        asked: the recipe's `labels`.
        sample: files that share their name up to the first dot; more of them may follow.
        pictures: those of them that are pictures.

    Returns:
        A number of files with a label for each picture among them; 0 where the sample cannot be cut so.
    """
    known = {id(carrier.member): carrier for carrier in carriers_of(asked, sample, pictures)}
    carriers = [known.get(id(member)) for member in sample]
    stems = [carrier.stem if carrier else _chain(member)[0] for carrier, member in zip(carriers, sample, strict=True)]
    cut = next((place for place in range(len(stems) - 1, 0, -1) if not _are_related(stems[place - 1], stems[place])), 0)
    first = set(map(id, sample[:cut]))
    labelled = {carrier.stem for carrier in carriers[:cut] if carrier}
    chains = [set(_chain(picture)) for picture in pictures if id(picture) in first]
    if "" in labelled or (asked != "" and any(labelled.isdisjoint(chain) for chain in chains)):
        return 0
    return cut


def _are_related(one: str, other: str) -> bool:
    """Tell whether one name is the other, or begins it dot by dot."""
    return not one or not other or f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _labelled(
    asked: str | None, picture: Member, by_stem: Mapping[str, Sequence[Carrier]], text: Callable[[], TextKind]
) -> tuple[Labelled, Carrier | None]:
    """Read the label of a picture; tell the file that holds it."""
    near = [carrier for stem in _chain(picture) for carrier in by_stem.get(stem, ())]
    try:
        for carrier, label in _candidates(asked, near, text):
            if label is not None or asked:
                return Labelled(picture, label), carrier
    except SourceError:
        raise
    except ValueError as error:
        return Labelled(picture, None, str(error)), None
    missing = f"the sample has no file .{asked}, and no .json with '{asked}'" if asked else ""
    return Labelled(picture, None, missing), None


def _candidates(
    asked: str | None, near: Sequence[Carrier], text: Callable[[], TextKind]
) -> Iterator[tuple[Carrier, str | None]]:
    """Read the files beside a picture in the order in which they count, of each kind the nearest name first.

    Raises:
        ValueError: one that counts cannot be read.
    """
    unsure: list[tuple[Carrier, str]] = []
    for carrier in sorted(near, key=_order) if len(near) > 1 else near:
        kind, member = carrier.kind, carrier.member
        if kind == "json":
            values = _values(member)
            key = _label_key(values, asked)
            if key is not None:
                yield carrier, _spelled(key, values[key])
            elif not asked:
                unsure += [(carrier, f"its label may be '{name}' of {member.path}") for name in _unsure_keys(values)]
        elif kind == "text":
            yield carrier, _label_of_text(carrier, text)
        elif kind == "unsure":
            unsure.append((carrier, f"its label may be in {member.path}, which is not read"))
        elif kind != "index" or not unsure:
            yield carrier, _text(member).strip() or None
    if unsure:
        carrier, what = unsure[0]
        raise ValueError(f"{what}. {_hint(carrier)}")


def _order(carrier: Carrier) -> int:
    return _KINDS.index(carrier.kind)


def _losses(
    asked: str | None, left: Sequence[Carrier], found: Sequence[Labelled], givers: Sequence[Carrier]
) -> Iterator[tuple[Carrier, str]]:
    """Say of files that gave their label to no picture which label is lost with them; nothing where none is."""
    reached = {stem for item in found for stem in _chain(item.picture)}
    unlabelled = any(item.label is None for item in found)
    for carrier in left:
        if carrier.stem not in reached:
            # Data of another kind; or of a picture that is not there, as names with several dots show.
            other = carrier.kind in ("json", "text") and not (
                unlabelled or any(giver.kind == carrier.kind and giver.stem for giver in givers)
            )
            yield carrier, _STRANGER if not other and _holds_label(carrier, asked) else ""
        elif carrier.kind in ("asked", "file"):
            yield carrier, _difference(carrier, found)


def _difference(carrier: Carrier, found: Sequence[Labelled]) -> str:
    """Say that a file has another label than its pictures; empty where it has theirs, or none."""
    labels = {item.label for item in found if item.label is not None and carrier.stem in _chain(item.picture)}
    try:
        label = _text(carrier.member).strip()
    except ValueError as error:  # without a label, the picture is a reject that says so
        return str(error) if labels else ""
    others = sorted(labels - {label})
    return f"its label '{label}' is not that of its picture, '{others[0]}'" if label and others else ""


def _hint(carrier: Carrier) -> str:
    """Say what in the recipe decides about a file."""
    ending, named = carrier.member.ending, carrier.stem.replace(".", "").isalpha()
    if carrier.kind == "json":
        return 'Name the key with labels = "...", or say labels = "" for no labels'
    if carrier.kind == "unsure" and ending.rpartition(".")[2] in _ARRAYS:
        return 'Write it as text, or say labels = "" for no labels'
    wanted = ending if named else ending.removeprefix(f"{carrier.stem}.")
    return f'If it holds the label say labels = "{wanted}", or labels = "" for no labels'


def _label_of_text(carrier: Carrier, text: Callable[[], TextKind]) -> str | None:
    label = _text(carrier.member).strip()
    kind = text() if label else "caption"
    if kind == "caption":
        return None
    if kind == "unclear" or len(label.split()) >= _CAPTION_WORDS or len(label.splitlines()) > 1:
        raise ValueError(f"its label may be in {carrier.member.path}, or a caption. {_hint(carrier)}")
    return label


def _holds_label(carrier: Carrier, asked: str | None) -> bool:
    if carrier.kind != "text":
        return carrier.kind != "index" and (
            carrier.kind != "json" or _label_key(_known_values(carrier), asked) is not None
        )
    try:
        return 0 < len(_text(carrier.member).split()) < _CAPTION_WORDS
    except ValueError:
        return False


def _known_values(carrier: Carrier) -> dict[str, Any]:
    try:
        return _values(carrier.member)
    except ValueError:
        return {}


def _unsure_keys(values: dict[str, Any]) -> list[str]:
    """List the keys of a JSON that are called almost like a label, such as `fine_label`."""
    others = [key for key, value in values.items() if value is not None and _plain(key) not in _KEYS]
    return [key for key in others if not _HINTS.isdisjoint(_WORDS.findall(_HUMP.sub("_", key).lower()))]


def _chain(picture: Member) -> tuple[str, ...]:
    """List the names, behind the first dot, of labels that a picture may have: from the longest to none."""
    return _beginnings(picture.ending)


@lru_cache(2**12)
def _beginnings(stem: str) -> tuple[str, ...]:
    chain = [stem]
    while stem:
        stem = stem.rpartition(".")[0]
        chain.append(stem)
    return tuple(chain)


def _text(member: Member) -> str:
    if member.refused is not None:
        raise ValueError(f"{member.path}: {member.refused.detail}")
    try:
        return member.data.decode("utf-16" if member.data.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{member.path} is no UTF-8 text") from None


def _values(member: Member) -> dict[str, Any]:
    """Read a JSON: its keys and values, or a single word or number as if it were called "label"."""
    text = _text(member)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{member.path} is no JSON ({error})") from None
    if isinstance(values, list):
        raise ValueError(  # noqa: TRY004 - a value, not a type, is wrong
            f'{member.path} holds a list, which is not read. Say labels = "" for no labels'
        )
    return values if isinstance(values, dict) else {_KEYS[0]: values}


def _label_key(values: dict[str, Any], asked: str | None) -> str | None:
    """Find the key of a JSON that is called like a label."""
    if asked:
        return asked if asked in values else None
    if usual := [key for key in _SURE_KEYS if key in values]:
        return usual[0]
    called = {_plain(key): key for key in reversed(values)}
    if "x" in called:  # then "y" is a place
        called.pop("y", None)
    return next((called[name] for name in _KEYS if name in called), None)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _spelled(key: str, value: Any) -> str | None:  # noqa: ANN401 - whatever JSON can hold
    """Spell a value of JSON as a label: words and whole numbers are labels."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, float) and math.isnan(value):
        value = None
    if isinstance(value, bool | int):
        return str(value).lower()
    if not isinstance(value, str | None):
        raise ValueError(  # noqa: TRY004 - a value, not a type, is wrong
            f'\'{key}\' is neither words nor a whole number. Name another key with labels = "...", or say labels = ""'
        )
    try:
        text = (value or "").strip()
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"'{key}' is no text: half a character") from None
    return text or None
