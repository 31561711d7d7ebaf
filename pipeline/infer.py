"""Infer a recipe from paths: for `imagelake build PATH...` and `imagelake init PATH...`.

The recipe is TOML with comments. Both commands parse this text, so they make equal tables. Every path is a source; its
dataset is named after the path. The rule is `exact`. The split `main` has the roles of the sources; an image in several
roles stays in test, else in valid, so that published test sets stay complete. If the only role is train, it is divided
80:10:10 into train, valid and test, with equal images in the same role. A path may name its split, as in
train=a.zip. A share of train can become the role valid.
"""

import json
import os
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from pipeline import sources, storage
from pipeline.addresses import identity, redacted
from pipeline.errors import LakeError, RecipeError, SourceError
from pipeline.lake.releases import newest_release
from pipeline.lake.snapshot import Snapshot
from pipeline.maintenance import last_recipe
from pipeline.os_errors import advice_for
from pipeline.places import absolute, named_split
from pipeline.progress import plain
from pipeline.recipe import RECIPE_FILE, ROLES, Recipe, SourcePart, SplitPart, parse_recipe
from pipeline.recipe.naming import dataset_name
from pipeline.sources import Source
from pipeline.sources.containers import is_labels_file, is_lake
from pipeline.sources.roles import EVERYTHING_ELSE
from pipeline.sources.source import readable_name

_HEADER = "# A recipe of imagelake. Edit it, then run: imagelake build {target}\n"
_IS_REPLACED = "is replaced"
_SPLIT_HINTS = (
    "# sanitize and groups: only rules that stand here drop or group images; dedup.rules alone reports",
    '# conflicts = "drop"          # one picture under two labels: "keep" (the default), "drop" or "majority"',
    '# within = "first"            # copies in one role: "all" (the default), "first" or "none"',
)
_SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}


@dataclass(frozen=True)
class Inferred:
    """A recipe made from paths.

    Attributes:
        recipe: the recipe, validated.
        text: the same as TOML, with comments; None if the lake's recipe already has these sources.
        replaced: (dataset, uri) of sources that are replaced; the build removes their images from the lake.
        notes: remarks for the user, one line each.
    """

    recipe: Recipe
    text: str | None
    replaced: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def infer_text(paths: Sequence[str], root: str, target: str, base: Path, valid: float | None = None) -> str:
    """Write the recipe of some paths as TOML with comments.

    Args:
        paths: files, folders, patterns or addresses, or SPLIT=PATH.
        root: the value of `root` in `[lake]`.
        target: the argument of `imagelake build` in the first comment.
        base: the folder of the recipe file.
        valid: share of train that becomes the role valid; None for a role only where a source has this split.

    Raises:
        SourceError: a path does not exist or has no known format.
        RecipeError: a path is not UTF-8, or there is a valid split, or no train or test, to take a share for.
    """
    entries, found = _entries(paths, root, base)
    if not entries:
        raise SourceError(f"{', '.join(paths)}: these are labels without images. Name the images too.")
    lines = [_HEADER.format(target=target), "[lake]", f"root = {_toml(root)}", ""]
    for entry, comments, _ in entries:
        lines += ["[[source]]", *(f"{key} = {_toml(value)}" for key, value in entry.items()), *comments, ""]
    lines += [
        "# [decode]",
        '# mode = "RGB"               # or "L" (gray); without it the first build decides by the content',
        "# size = [224, 224]          # (height, width); without it every picture keeps its own size",
        '# fit = "stretch"            # or "crop" or "pad"',
        "",
        "[dedup]",
        'rules = ["exact"]             # more: "hamming:4", "cosine:0.95", "photo:0.4" (docs: rules)',
        "",
    ]
    split = default_split(found) if valid is None else _split_with_valid(found, valid)
    if split:
        lines += ["[[split]]", *(f"{key} = {_toml(value)}" for key, value in split.items()), *_SPLIT_HINTS, ""]
    return "\n".join(lines)


def infer(paths: Sequence[str], root: str, *, replace: bool = True, valid: float | None = None) -> Inferred:
    """Infer the recipe of a lake from paths. If the lake exists, the paths are added to its recipe.

    A new source replaces a source of the lake with the same dataset and splits.

    Args:
        paths: as in `infer_text`.
        root: the lake's place.
        replace: whether a source of the lake may be replaced; otherwise that is an error.
        valid: as in `infer_text`. An existing lake must have it already.

    Raises:
        LakeError: the place contains other files than those of a lake.
        SourceError: a path does not exist or has no known format.
        RecipeError: a source would be replaced and `replace` is false; the splits of a new source overlap with those of
            another one; the lake has a path as another split, or another share as valid; or a recipe is not valid.
    """
    place = storage.normalized(root)
    known = stored_recipe(Snapshot(place))
    if known is None:
        _check_place(place)
        bucket = storage.is_bucket(place)
        base = Path.cwd() if bucket else Path(place).absolute()
        text = infer_text(paths, place if bucket else ".", root, base, valid)
        file = None if bucket else base / RECIPE_FILE
        return Inferred(parse_recipe(tomllib.loads(text), base=base, file=file), text)
    merged = _merged(paths, place, known)
    _check_valid(valid, merged.recipe, root)
    lost = [note for note in merged.notes if _IS_REPLACED in note]
    if lost and not replace:
        raise RecipeError(
            f"{root} exists and has images of the same dataset and split. {lost[0]} To replace them, add "
            f"--into {root}; to build another lake, name another place with --into."
        )
    return merged


def write_recipe(file: Path, text: str) -> str:
    """Write the recipe of a lake to its folder. An existing recipe that differs is renamed.

    Returns:
        The name of the file.

    Raises:
        LakeError: the file cannot be written.
    """
    draft = file.with_name(f".{file.name}.draft")
    try:
        before = file.read_text(encoding="utf-8") if file.exists() else text
        if before != text:
            number = next(n for n in count(1) if not file.with_name(f"{file.stem}.{n}.toml").exists())
            file.replace(file.with_name(f"{file.stem}.{number}.toml"))
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    except (OSError, UnicodeDecodeError) as error:
        with suppress(OSError):
            draft.unlink()
        why, advice = getattr(error, "strerror", None) or error, advice_for(error) or "Free some space or move the file"
        raise LakeError(
            f"{file}: the release is published and holds the recipe, but the file cannot be written ({why}). {advice}; "
            "the lake builds without it."
        ) from error
    return str(file)


def default_split(found: Iterable[Source]) -> dict[str, Any]:
    """Return the split `main`: with the roles of the sources, or shares of train; empty without such roles."""
    roles = [role for role in ROLES if role in {source.split for source in found if not source.is_remainder}]
    if not roles:
        return {}
    if roles == ["train"]:
        shares: dict[str, Any] = {role: {"from": "train", "share": share} for role, share in _SHARES.items()}
        return {"name": "main", "seed": 0, "groups": ["exact"], **shares}
    parts: dict[str, Any] = {role: {"from": role} for role in roles}
    return {"name": "main", "seed": 0, "keep": ["test", "valid", "train"], "sanitize": ["exact"], **parts}


def _split_with_valid(found: Iterable[Source], share: float) -> dict[str, Any]:
    """Return the split `main` with a share of train as the role valid.

    Raises:
        RecipeError: there is a valid split, or no train or no test.
    """
    made = default_split(found)
    if [role for role in ROLES if role in made] != ["train", "test"]:
        has = ", ".join(sorted({source.split for source in found if not source.is_remainder}))
        raise RecipeError(
            f"--valid {share:g}: it takes valid from train, where there are train and test and no valid; the sources "
            f"have {has}. Leave it out, or name the splits: train=PATH test=PATH."
        )
    roles = {"train": made.pop("train"), "valid": {"from": "train", "share": share}, "test": made.pop("test")}
    return {**made, **roles}


def _check_valid(valid: float | None, recipe: Recipe, root: str) -> None:
    """Check that the split `main` of an existing lake has this share as valid.

    Raises:
        RecipeError: it has not.
    """
    shares = {part.valid.share for part in recipe.split if part.name == "main" and part.valid}
    if valid is not None and shares != {valid}:
        raise RecipeError(
            f"--valid {valid:g} is for a new lake, and {root} has other splits. Edit its recipe, then run: "
            f"imagelake build {root}"
        )


def stored_recipe(snapshot: Snapshot) -> Recipe | None:
    """Read the recipe of a lake's newest release: from its file if that exists, else from the commit of the release.

    Returns:
        The recipe; None if there is no lake, or no release.

    Raises:
        RecipeError: the recipe is not valid.
    """
    return last_recipe(snapshot.place) if newest_release(snapshot) else None


def recipe_text(values: Mapping[str, Any], root: str, target: str) -> str:
    """Write a whole recipe as TOML.

    Args:
        values: the recipe, as TOML has it.
        root: value of `[lake] root`.
        target: what the comment names as the argument of `imagelake build`.
    """
    lines = [_HEADER.format(target=target), "[lake]", f"root = {_toml(root)}", ""]
    for key, value in values.items():
        if key == "lake":
            continue
        tables = value if isinstance(value, list) else [value]
        brackets = f"[[{key}]]" if isinstance(value, list) else f"[{key}]"
        for table in tables:
            lines += [brackets, *(f"{name} = {_toml(item)}" for name, item in table.items()), ""]
    return "\n".join(lines)


def _splits_of(recipe: Recipe, uri: str) -> set[str]:
    """Return the splits that a source of a recipe has, given by the identity of its uri."""
    found = sources.resolve(recipe)
    return {source.split for source in found if uri in (identity(source.uri), identity(source.group))}


def _merged(paths: Sequence[str], place: str, known: Recipe) -> Inferred:
    """Add paths to the recipe of a lake.

    A path that the recipe already has is not changed. A new path replaces a source with the same dataset and splits.
    """
    values = _values(known)
    old: list[dict[str, Any]] = values["source"]
    existing = {(identity(part["uri"]), part.get("split")) for part in old}
    new = []
    for argument in paths:
        split, path = named_split(argument)
        here = identity(absolute(path))
        if here not in {uri for uri, _ in existing}:
            new.append(argument)
        elif split and (here, split) not in existing and _splits_of(known, here) != {split}:
            raise RecipeError(
                f"{redacted(path)} is in {place} already, and not as split {split}. Edit `split` in the recipe of the "
                f"lake, then run: imagelake build {place}"
            )
    entries, _ = _entries(new, known.root, known.base)
    if not entries:
        return Inferred(known, None)
    before = sources.resolve(known)
    replaced = [part for part in old for entry, _, found in entries if _is_replaced(part, known, before, entry, found)]
    values["source"] = [part for part in old if part not in replaced] + [entry for entry, _, _ in entries]
    notes = [
        f"{part['dataset']}: {part['uri']} {_IS_REPLACED}. To keep both, give one another `dataset` in the recipe."
        for part in replaced
    ]
    # An inferred split is inferred again; a split that the user wrote stays.
    inferred = default_split(before)
    if known.split == ((SplitPart.model_validate(inferred),) if inferred else ()):
        made = default_split(sources.resolve(parse_recipe({**values, "split": []}, base=known.base)))
        values["split"] = [made] if made else []
    bucket = storage.is_bucket(place)
    text = recipe_text(values, place if bucket else ".", place)
    base = known.base if bucket else Path(place).absolute()
    file = None if bucket else base / RECIPE_FILE
    if known.file is not None and file is not None and known.file != file.resolve():
        notes.append(f"the recipe of the lake is now {file} instead of {known.file}.")
    recipe = parse_recipe(tomllib.loads(text), base=base, file=file)
    # Relative paths of the recipe become absolute, so these sources are read again under the new uri.
    renamed = [(part.dataset, part.uri) for part, now in zip(known.source, old, strict=True) if part.uri != now["uri"]]
    gone = (*((part["dataset"], part["uri"]) for part in replaced), *renamed)
    return Inferred(recipe, text, gone, tuple(notes))


def _is_replaced(
    part: Mapping[str, Any], known: Recipe, before: Sequence[Source], entry: Mapping[str, Any], found: Sequence[Source]
) -> bool:
    """Return whether a new source replaces one of the lake's recipe.

    Raises:
        RecipeError: they have the same dataset, but the new source lacks some splits of the old one.
    """
    if part["dataset"] != entry["dataset"]:
        return False
    old = {
        source.split
        for source in before
        if source.dataset == part["dataset"]
        and not source.is_remainder
        and _join(known.base, source.group or source.uri) == identity(part["uri"])
    }
    new = {source.split for source in found if not source.is_remainder}
    if not old & new:
        return False
    if old - new:
        raise RecipeError(
            f"{entry['uri']} has the splits {', '.join(sorted(new))} of dataset '{part['dataset']}', but "
            f"{part['uri']} in the lake has {', '.join(sorted(old))}. Set another `dataset` for one of them: write a "
            "recipe with imagelake init, or edit the recipe of the lake."
        )
    return True


def _entries(
    paths: Sequence[str], root: str, base: Path
) -> tuple[list[tuple[dict[str, Any], list[str], list[Source]]], list[Source]]:
    """Return, for each path, its `[[source]]`, comments and resolved sources; and all resolved sources."""
    entries: list[tuple[dict[str, Any], list[str], list[Source]]] = []
    seen: set[tuple[str, str]] = set()
    named = [(absolute(path), split) for split, path in map(named_split, paths)]
    for uri, split in dict.fromkeys(one for one in named if "://" in one[0] or not is_labels_file(Path(one[0]))):
        if uri.encode("utf-8", "replace").decode() != uri:
            raise RecipeError(f"{readable_name(uri)}: the path is not UTF-8. Rename it.")
        chosen = {"split": split} if split else {}
        recipe = parse_recipe({"lake": {"root": root}, "source": [{"uri": uri, **chosen}]}, base=base)
        found = sources.resolve(recipe)
        if not found:
            raise sources.lacking_error(recipe.source[0])
        # The file is in the cache now. The recipe is stored without secrets.
        uri = recipe.source[0].uri  # noqa: PLW2901
        splits = {source.split for source in found}
        name = _free_name(dataset_name(uri), uri, splits, seen)
        seen |= {(name, split) for split in splits}
        entry: dict[str, Any] = {"uri": uri, "dataset": name}
        comments: list[str] = []
        is_one_file = not (Path(uri).is_dir() or found[0].group)
        if split:
            entry["split"] = split
        elif is_one_file and len(found) == 1 and not found[0].folders:
            entry["split"] = found[0].split
        elif is_one_file and any(source.folders for source in found):
            entry["splits"] = {source.split: list(source.folders) or [EVERYTHING_ELSE] for source in found}
        else:
            comments = _comments([source for source in found if not source.is_remainder])
        entries.append((entry, comments, found))
    return entries, [source for _, _, found in entries for source in found]


def _comments(found: Sequence[Source]) -> list[str]:
    folders: dict[str, list[str]] = {}
    for source in found:
        folders.setdefault(source.split, []).extend(f"{folder}/" for folder in source.folders)
    listed = [f"{split} ({', '.join(named)})" if named else split for split, named in folders.items()]
    return [
        f"# splits found: {plain(', '.join(listed))}",
        '# split = "train"            # use all of it as one split',
    ]


def _free_name(name: str, uri: str, splits: Collection[str], seen: set[tuple[str, str]]) -> str:
    """Return a name that no dataset with the same split has: with the name of the folder above, else with a number."""
    candidates = [name, f"{dataset_name(os.path.dirname(uri.rstrip('/')))}-{name}"]  # noqa: PTH120 - may be an address
    candidates += [f"{name}-{number}" for number in range(2, len(seen) + 3)]
    return next(one for one in candidates if not any((one, split) in seen for split in splits))


def _check_place(place: str) -> None:
    """Check that a lake can be created there: it must not be put among other files."""
    if storage.is_bucket(place) or not Path(place).exists():
        return
    if not Path(place).is_dir():
        raise LakeError(f"{place} is a file, not a lake. Name a folder with --into.")
    if not is_lake(place) and any(entry.name != ".lock" for entry in Path(place).iterdir()):
        raise LakeError(f"{place} contains files, but is not a lake. Name another folder with --into.")


def _values(recipe: Recipe) -> dict[str, Any]:
    """Return the values of a recipe that are not the default, with absolute paths."""
    values = recipe.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    values["source"] = [_with_absolute(recipe, part) for part in recipe.source]
    if "embedding" in values:
        values["embedding"] = [
            {**item, **{key: _join(recipe.base, item[key]) for key in ("uri", "paths") if key in item}}
            for item in values["embedding"]
        ]
    # Keep roles with default values: leaving one out would remove the role.
    values["split"] = [part.model_dump(mode="json", by_alias=True, exclude_defaults=True) for part in recipe.split]
    return {key: value for key, value in values.items() if value not in ({}, [])}


def _with_absolute(recipe: Recipe, part: SourcePart) -> dict[str, Any]:
    values: dict[str, Any] = part.model_dump(mode="json", by_alias=True, exclude_none=True)
    return values if part.format in ("glyphs", "digits") else {**values, "uri": _join(recipe.base, part.uri)}


def _join(base: Path, uri: str) -> str:
    return uri if "://" in uri else os.path.normpath(os.path.join(base, uri))  # noqa: PTH118 - may be a pattern


def _toml(value: Any) -> str:  # noqa: ANN401 - a TOML value
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(key)} = {_toml(item)}' for key, item in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON strings are TOML strings, except for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)
