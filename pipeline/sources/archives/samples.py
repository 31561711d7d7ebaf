"""The samples of a WebDataset: which files hold labels, and which image has which label.

In the WebDataset format, the files of a sample share their name up to the first dot. By this rule, names with more
dots (`v1.1.png`, `v1.1.cls`, `v1.2.png`, `v1.2.cls`) are one sample. So an image has the label file whose name is the
longest prefix of its own, in steps of dots: `v1.1.cls` for `v1.1.png` and `v1.1.left.png`; `v1.cls` for both if there
is no `v1.1.cls`. `v1.1.png.cls` is also a label of `v1.1.png`.

The first of these that exists is the label: a file with a usual ending (`.cls`, `.label`, `.class`, ..., also
`.cls.txt`), a usual key of the `.json`, a `.txt`, a file `.index`. A file with a label that no image takes is a reject.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from pipeline.errors import SourceError
from pipeline.shard import Reject

# Endings of files and keys of JSON that hold a label, without "_" and "-". The first that exists counts.
_NAMES = ("classname", "labelname", "clsname", "categoryname", "targetname")
_NUMBERS = ("classid", "labelid", "clsid", "categoryid", "targetid", "classidx", "labelidx", "classindex", "labelindex")
_ENDINGS = ("cls", "label", "class", "labels", "target", "category", "y", *_NAMES, *_NUMBERS)
_USUAL_KEYS = ("label", "cls", "class")
_KEYS = (*_USUAL_KEYS, "labels", "target", "category", "y", *_NAMES, *_NUMBERS)
# Words in other endings and keys that suggest a label.
_HINTS = frozenset(["cls", "label", "labels", "class", "classes", "target", "targets", "category", "categories"])
_WORDS, _HUMP = re.compile(r"[a-z]+"), re.compile(r"(?<=[a-z])(?=[A-Z])")
# Kinds of files that may hold a label; the first kind that exists counts.
_KIND_ORDER = ("named", "file", "json", "text", "unsure", "index")
_INDEX = "index"
_TEXT, _JSON = ("txt", "text"), "json"
_ARRAYS = ("npy", "npz", "pt", "pth", "pkl", "pickle", "pyd", "ten", "mp", "msg", "msgpack", "cbor")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# A text of this many words is a caption, not a class name.
_CAPTION_WORDS = 6
# Path up to the first dot of the name, ending.
_NAME = re.compile(r"((?:.*/|)[^/.]+)\.([^/]*)", re.DOTALL)

_NO_PICTURE = "a label, but no picture has its name"

TextKind = Literal["label", "caption", "unclear"]


class Member(NamedTuple):
    """One file of the archive.

    Attributes:
        path: its cleaned path.
        key: the path up to the first dot of the name; shared by the files of a sample.
        ending: the name after that dot, in lower case; empty if the name has no dot, or begins with one.
        data: its content; empty if it is a reject or not needed.
        size: bytes of content.
        reject: the reject, if it is not read; else None.
    """

    path: str
    key: str
    ending: str
    data: bytes
    size: int
    reject: Reject | None = None


class _Kind(NamedTuple):
    """The meaning of an ending; see `Carrier`."""

    stem: str
    kind: str
    rank: int


class Carrier(NamedTuple):
    """A file that may hold a label.

    Attributes:
        member: the file.
        stem: its name between the first dot and the ending that `kind` describes, in lower case.
        kind: "named" (by the recipe), "file", "json", "unsure" (an array, or an ending that resembles a label), "text"
            or "index".
        rank: smaller for a more usual ending.
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
        fault: why the label cannot be read; empty if it can be read, or if there is none.
    """

    picture: Member
    label: str | None
    fault: str = ""


def member_of(path: str, data: bytes, size: int, reject: Reject | None = None) -> Member:
    """Make a member from a file."""
    found = _NAME.fullmatch(path)
    if found is None:
        return Member(path, path, "", data, size, reject)
    return Member(path, found[1], found[2].lower(), data, size, reject)


def may_hold_label(setting: str | None, member: Member) -> bool:
    """Return whether a file may hold a label, by its name."""
    return bool(_kinds_of(setting, member.ending))


def carriers_of(setting: str | None, sample: Sequence[Member], pictures: Sequence[Member]) -> list[Carrier]:
    """Find the files of a sample that may hold a label.

    Args:
        setting: the recipe's `labels`: an ending or a key of the JSON; empty for no labels, None for the usual ones.
        sample: the files of the sample.
        pictures: those that may be images: `1.label.cls` is the label of `1.label.png` if it exists, else of all images
            of the sample.
    """
    found = [(member, kinds) for member in sample if (kinds := _kinds_of(setting, member.ending))]
    if all(len(kinds) == 1 for _, kinds in found):
        return [Carrier(member, *kinds[0]) for member, kinds in found]
    reached = {stem for picture in pictures for stem in _label_stems(picture)}
    return [
        Carrier(member, *next((kind for kind in kinds if kind.stem in reached), kinds[-1])) for member, kinds in found
    ]


@lru_cache(2**12)
def _kinds_of(setting: str | None, ending: str) -> tuple[_Kind, ...]:
    """Return the meanings of an ending: those that need an image with their stem first, the default last."""
    front, _, last = ending.rpartition(".")
    if setting is not None:
        wanted = setting.lower().removeprefix(".")
        if wanted and f".{ending}".endswith(f".{wanted}"):
            return (_Kind(ending[: -len(wanted)].removesuffix("."), "named", 0),)
        return (_Kind(front, "json", 0),) if wanted and last == _JSON else ()
    return tuple(_kinds_of_usual_ending(front, last))


def _kinds_of_usual_ending(front: str, last: str) -> Iterator[_Kind]:
    above, _, word = front.rpartition(".")
    named = _ENDINGS.index(_letters_of(word)) if _letters_of(word) in _ENDINGS else None
    if _letters_of(last) in _ENDINGS:
        rank = _ENDINGS.index(_letters_of(last))
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


def pictures_of(setting: str, sample: Sequence[Member], stems: Collection[str]) -> list[Member]:
    """Find the files with the ending that the recipe names for images.

    Args:
        setting: the ending.
        sample: the files of a sample.
        stems: the stems of its labels: in names with several dots, the ending begins after one of them.
    """
    wanted = setting.lower().removeprefix(".")
    exact = [member for member in sample if member.ending == wanted]
    ends = [member for member in sample if member.ending.endswith(f".{wanted}")]
    near = [member for member in ends if member.ending.removesuffix(f".{wanted}") in stems]
    return exact or near or ends


def has_label(pictures: Sequence[Member], carriers: Sequence[Carrier]) -> bool:
    """Return whether an image has a label file: the sign of a WebDataset, as opposed to a tar of class folders.

    In class folders, only a JSON with a key label, cls or class counts, and a `.txt` does not.

    Args:
        pictures: the images of a sample.
        carriers: the files that may hold a label.
    """
    stems = {stem for picture in pictures for stem in _label_stems(picture)}
    beside = [carrier for carrier in carriers if carrier.stem in stems]
    if any(carrier.kind == "file" for carrier in beside):
        return True
    values = [_known_values(carrier) for carrier in beside if carrier.kind == "json"]
    if any("/" in picture.path for picture in pictures):
        return any(_letters_of(_label_key(held, None) or "") in _USUAL_KEYS for held in values)
    return any(carrier.kind in ("text", "unsure") for carrier in beside) or any(
        _label_key(held, None) or _unsure_keys(held) for held in values
    )


def text_kind(texts: Sequence[str]) -> TextKind:
    """Return what the `.txt` files of an archive are, from some of them: labels of one word, or captions of many."""
    counts = [len(text.split()) for text in texts if text.strip()]
    letters = [sum(any(map(str.isalpha, word)) for word in text.split()) for text in texts]
    if max(letters, default=0) >= _CAPTION_WORDS:
        return "caption"
    return "label" if counts and max(counts) == 1 else "unclear"


def labels_in(
    setting: str | None, pictures: Sequence[Member], carriers: Sequence[Carrier], text: Callable[[], TextKind]
) -> tuple[list[Labelled], list[tuple[Member, str]]]:
    """Read the labels of a sample's pictures.

    Args:
        setting: the recipe's `labels`.
        pictures: the images of the sample.
        carriers: the files of the sample that may hold a label.
        text: returns what the `.txt` files of the archive are; only called if an image has no other label.

    Returns:
        The images with their labels, and the files whose labels are not used, each with the reason.
    """
    by_stem: dict[str, list[Carrier]] = {}
    for carrier in sorted(carriers, key=attrgetter("rank")) if len(carriers) > 1 else carriers:
        by_stem.setdefault(carrier.stem, []).append(carrier)
    read = [_label_of(setting, picture, by_stem, text) for picture in pictures]
    found, used = [item for item, _ in read], [giver for _, giver in read if giver]
    if len(used) == len(carriers) == 1:
        return found, []
    given = set(map(id, used))
    left = [carrier for carrier in carriers if id(carrier) not in given]
    lost = [(carrier, why) for carrier, why in _lost_labels(setting, left, found, used) if why]
    without_picture = [carrier for carrier, why in lost if why == _NO_PICTURE]
    if without_picture:
        fault = (
            f"its label may be in {without_picture[0].member.path}, which has another name. {_hint(without_picture[0])}"
        )
        found = [item._replace(fault=item.fault or fault) if item.label is None else item for item in found]
    return found, [(carrier.member, f"{why}. {_hint(carrier)}") for carrier, why in lost]


def separable_files(setting: str | None, sample: Sequence[Member], pictures: Sequence[Member]) -> int:
    """Return how many of the first files of a long sample can be split off, if names have several dots.

    Args:
        setting: the recipe's `labels`.
        sample: files that share their name up to the first dot; more of them may follow.
        pictures: the images among them.

    Returns:
        A number of files that have a label for each of their images; 0 if the sample cannot be split.
    """
    known = {id(carrier.member): carrier for carrier in carriers_of(setting, sample, pictures)}
    carriers = [known.get(id(member)) for member in sample]
    stems = [
        carrier.stem if carrier else _label_stems(member)[0] for carrier, member in zip(carriers, sample, strict=True)
    ]
    cut = next((place for place in range(len(stems) - 1, 0, -1) if not _are_related(stems[place - 1], stems[place])), 0)
    first = set(map(id, sample[:cut]))
    labelled = {carrier.stem for carrier in carriers[:cut] if carrier}
    chains = [set(_label_stems(picture)) for picture in pictures if id(picture) in first]
    if "" in labelled or (setting != "" and any(labelled.isdisjoint(chain) for chain in chains)):
        return 0
    return cut


def _are_related(one: str, other: str) -> bool:
    """Return whether one name is the other, or a prefix of it in steps of dots."""
    return not one or not other or f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _label_of(
    setting: str | None, picture: Member, by_stem: Mapping[str, Sequence[Carrier]], text: Callable[[], TextKind]
) -> tuple[Labelled, Carrier | None]:
    """Return the label of an image, and the file that holds it."""
    near = [carrier for stem in _label_stems(picture) for carrier in by_stem.get(stem, ())]
    try:
        for carrier, label in _possible_labels(setting, near, text):
            if label is not None or setting:
                return Labelled(picture, label), carrier
    except SourceError:
        raise
    except ValueError as error:
        return Labelled(picture, None, str(error)), None
    missing = f"the sample has no file .{setting}, and no .json with '{setting}'" if setting else ""
    return Labelled(picture, None, missing), None


def _possible_labels(
    setting: str | None, near: Sequence[Carrier], text: Callable[[], TextKind]
) -> Iterator[tuple[Carrier, str | None]]:
    """Yield the possible labels of an image, the first that counts first.

    Raises:
        ValueError: one of them cannot be read.
    """
    unsure: list[tuple[Carrier, str]] = []
    for carrier in sorted(near, key=_order) if len(near) > 1 else near:
        kind, member = carrier.kind, carrier.member
        if kind == "json":
            values = _values(member)
            key = _label_key(values, setting)
            if key is not None:
                yield carrier, _label_of_value(key, values[key])
            elif not setting:
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
    return _KIND_ORDER.index(carrier.kind)


def _lost_labels(
    setting: str | None, left: Sequence[Carrier], found: Sequence[Labelled], used: Sequence[Carrier]
) -> Iterator[tuple[Carrier, str]]:
    """Yield the files whose label no image takes, with the reason; empty if no label is lost."""
    reached = {stem for item in found for stem in _label_stems(item.picture)}
    unlabelled = any(item.label is None for item in found)
    for carrier in left:
        if carrier.stem not in reached:
            # Other data; or the label of a missing image, if names of other labels of this kind have several dots.
            other = carrier.kind in ("json", "text") and not (
                unlabelled or any(giver.kind == carrier.kind and giver.stem for giver in used)
            )
            yield carrier, _NO_PICTURE if not other and _holds_label(carrier, setting) else ""
        elif carrier.kind in ("named", "file"):
            yield carrier, _conflict(carrier, found)


def _conflict(carrier: Carrier, found: Sequence[Labelled]) -> str:
    """Return that a file and its images have different labels; empty if they do not."""
    labels = {item.label for item in found if item.label is not None and carrier.stem in _label_stems(item.picture)}
    try:
        label = _text(carrier.member).strip()
    except ValueError as error:  # an image without a label is itself a reject with this message
        return str(error) if labels else ""
    others = sorted(labels - {label})
    return f"its label '{label}' is not that of its picture, '{others[0]}'" if label and others else ""


def _hint(carrier: Carrier) -> str:
    """Return which setting of the recipe decides about a file."""
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


def _holds_label(carrier: Carrier, setting: str | None) -> bool:
    if carrier.kind != "text":
        return carrier.kind != "index" and (
            carrier.kind != "json" or _label_key(_known_values(carrier), setting) is not None
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
    """List the keys of a JSON that resemble a label, such as `fine_label`."""
    others = [key for key, value in values.items() if value is not None and _letters_of(key) not in _KEYS]
    return [key for key in others if not _HINTS.isdisjoint(_WORDS.findall(_HUMP.sub("_", key).lower()))]


def _label_stems(picture: Member) -> tuple[str, ...]:
    """List the stems of labels that an image may have, the longest first, the empty one last."""
    return _stem_prefixes(picture.ending)


@lru_cache(2**12)
def _stem_prefixes(stem: str) -> tuple[str, ...]:
    chain = [stem]
    while stem:
        stem = stem.rpartition(".")[0]
        chain.append(stem)
    return tuple(chain)


def _text(member: Member) -> str:
    if member.reject is not None:
        raise ValueError(f"{member.path}: {member.reject.detail}")
    try:
        return member.data.decode("utf-16" if member.data.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{member.path} is no UTF-8 text") from None


def _values(member: Member) -> dict[str, Any]:
    """Read the keys and values of a JSON; a single word or number has the key "label"."""
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


def _label_key(values: dict[str, Any], setting: str | None) -> str | None:
    """Find the key of a JSON that names the label."""
    if setting:
        return setting if setting in values else None
    if usual := [key for key in _USUAL_KEYS if key in values]:
        return usual[0]
    called = {_letters_of(key): key for key in reversed(values)}
    if "x" in called:  # then "y" is a coordinate
        called.pop("y", None)
    return next((called[name] for name in _KEYS if name in called), None)


def _letters_of(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _label_of_value(key: str, value: Any) -> str | None:  # noqa: ANN401 - whatever JSON can hold
    """Return a value of JSON as a label: words and whole numbers are labels."""
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
