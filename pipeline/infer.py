"""Paths -> recipe: what `imagelake build PATH...` builds, and what `imagelake init PATH...` writes for people to edit.

The recipe is text with comments; both commands parse that text, so they make equal tables.

- Every path is a source with a dataset named for it. Folders keep their split open, so that a build looks at them
  again; files and archives get the split, or the folders of each split, that their content tells.
- The rule is `exact`. It is right for every kind of picture and costs nothing that counts.
- The split `main` has the roles that the sources have. A picture that occurs in several roles stays in test, then in
  valid: published test sets stay whole. Where there is only train, 80, 10 and 10 of 100 pictures go to train, valid and
  test, equal pictures always together.
"""

import json
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from pipeline import sources, storage
from pipeline.errors import LakeError, RecipeError, SourceError
from pipeline.lake.releases import newest_release
from pipeline.lake.snapshot import Snapshot
from pipeline.maintenance import last_recipe
from pipeline.places import absolute
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
        recipe: the recipe, checked.
        text: the same as TOML, with comments; None where the lake's own recipe names these sources already.
        replaced: (dataset, uri) of sources that others take the place of; what was read of them leaves the lake.
        notes: what to know about it, one line each.
    """

    recipe: Recipe
    text: str | None
    replaced: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def infer_text(paths: Sequence[str], root: str, target: str, base: Path) -> str:
    """Write the recipe of some paths as TOML with comments.

    Args:
        paths: files, folders, patterns or addresses.
        root: what `[lake] root` says.
        target: what a comment tells people to build.
        base: the folder that the recipe will lie in.

    Raises:
        SourceError: a path is missing or of no known form.
        RecipeError: two paths are one source.
    """
    entries, found = _entries(paths, root, base)
    if not entries:
        raise SourceError(f"{', '.join(paths)}: labels without images. Name the images too.")
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
        'rules = ["exact"]             # more: "hamming:4", "cosine:0.95", "photo:0.4"; see the README',
        "",
    ]
    split = default_split(found)
    if split:
        lines += ["[[split]]", *(f"{key} = {_toml(value)}" for key, value in split.items()), *_SPLIT_HINTS, ""]
    return "\n".join(lines)


def infer(paths: Sequence[str], root: str, *, replace: bool = True) -> Inferred:
    """Make the recipe of some paths for a lake, which may be there already: then they are added to its recipe.

    A source is the same as one of the lake if dataset and split are: then it takes its place.

    Args:
        paths: files, folders, patterns or addresses.
        root: the lake's place.
        replace: whether a source of the lake may be replaced; else that is an error.

    Raises:
        LakeError: the place holds something else than a lake.
        SourceError: a path is missing or of no known form.
        RecipeError: a source would be replaced and may not, or the lake's recipe has faults.
    """
    place = storage.normal(root)
    known = stored_recipe(place)
    if known is None:
        _check_place(place)
        bucket = storage.is_bucket(place)
        base = Path.cwd() if bucket else Path(place).absolute()
        text = infer_text(paths, place if bucket else ".", root, base)
        file = None if bucket else base / RECIPE_FILE
        return Inferred(parse_recipe(tomllib.loads(text), base=base, file=file), text)
    merged = _merged(paths, place, known)
    lost = [note for note in merged.notes if _IS_REPLACED in note]
    if lost and not replace:
        raise RecipeError(
            f"{root} is there already, and has images of the same dataset and split. {lost[0]} To replace them, add "
            f"--into {root}; to build another lake, name it with --into."
        )
    return merged


def write_recipe(file: Path, text: str) -> str:
    """Write the recipe of a lake beside its tables. One that is there and differs is kept under another name.

    Returns:
        Where it is.

    Raises:
        LakeError: it cannot be written.
    """
    try:
        before = file.read_text(encoding="utf-8") if file.exists() else text
        if before != text:
            number = next(n for n in count(1) if not file.with_name(f"{file.stem}.{n}.toml").exists())
            file.replace(file.with_name(f"{file.stem}.{number}.toml"))
        draft = file.with_name(f".{file.name}.draft")
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        raise LakeError(
            f"{file}: the recipe cannot be written ({error.strerror}). The lake is built, and keeps its recipe too."
        ) from error
    return str(file)


def default_split(found: Iterable[Source]) -> dict[str, Any]:
    """Choose the split `main` for sources: their roles, or shares of train; empty where they have none of the roles."""
    roles = [role for role in ROLES if role in {source.split for source in found if not source.rest}]
    if not roles:
        return {}
    if roles == ["train"]:
        shares: dict[str, Any] = {role: {"from": "train", "share": share} for role, share in _SHARES.items()}
        return {"name": "main", "seed": 0, "groups": ["exact"], **shares}
    parts: dict[str, Any] = {role: {"from": role} for role in roles}
    return {"name": "main", "seed": 0, "keep": ["test", "valid", "train"], "sanitize": ["exact"], **parts}


def stored_recipe(root: str) -> Recipe | None:
    """Read the recipe of a lake's newest release: from its file where that is there, else as the release keeps it.

    Returns:
        The recipe; None where the lake has no release, or there is no lake.

    Raises:
        RecipeError: the file has faults.
    """
    return last_recipe(root) if newest_release(Snapshot(root)) else None


def recipe_text(values: Mapping[str, Any], root: str, target: str) -> str:
    """Write a whole recipe as TOML.

    Args:
        values: the recipe, as TOML has it.
        root: what `[lake] root` says.
        target: what a comment says to build.
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


def _merged(paths: Sequence[str], place: str, known: Recipe) -> Inferred:
    """Add paths to the recipe of a lake.

    A path that the recipe names stays as the recipe has it. A new one takes the place of a source whose dataset and
    splits it has.
    """
    values = _values(known)
    old: list[dict[str, Any]] = values["source"]
    there = {part["uri"] for part in old}
    entries, _ = _entries([path for path in paths if absolute(path) not in there], known.root, known.base)
    if not entries:
        return Inferred(known, None)
    before = sources.resolve(known)
    replaced = [part for part in old for entry, _, found in entries if _is_replaced(part, known, before, entry, found)]
    values["source"] = [part for part in old if part not in replaced] + [entry for entry, _, _ in entries]
    notes = [
        f"{part['dataset']}: {part['uri']} {_IS_REPLACED}. To keep both, give one another `dataset` in the recipe."
        for part in replaced
    ]
    # A split that was inferred follows the sources; one that was written stays.
    inferred = default_split(before)
    if known.split == ((SplitPart.model_validate(inferred),) if inferred else ()):
        made = default_split(sources.resolve(parse_recipe({**values, "split": []}, base=known.base)))
        values["split"] = [made] if made else []
    bucket = storage.is_bucket(place)
    text = recipe_text(values, place if bucket else ".", place)
    base = known.base if bucket else Path(place).absolute()
    file = None if bucket else base / RECIPE_FILE
    if known.file is not None and file is not None and known.file != file.resolve():
        notes.append(f"the recipe of the lake is now {file}, and no longer {known.file}.")
    recipe = parse_recipe(tomllib.loads(text), base=base, file=file)
    # Relative paths of the recipe are absolute from now on: what was read by the old spelling is read again.
    respelled = [
        (part.dataset, part.uri) for part, now in zip(known.source, old, strict=True) if part.uri != now["uri"]
    ]
    gone = (*((part["dataset"], part["uri"]) for part in replaced), *respelled)
    return Inferred(recipe, text, gone, tuple(notes))


def _is_replaced(
    part: Mapping[str, Any], known: Recipe, before: Sequence[Source], entry: Mapping[str, Any], found: Sequence[Source]
) -> bool:
    """Tell whether a new source takes the place of one of the lake's recipe.

    Raises:
        RecipeError: they share the dataset and some splits, but not all of the old source.
    """
    if part["dataset"] != entry["dataset"]:
        return False
    ours = {
        source.split
        for source in before
        if source.dataset == part["dataset"]
        and not source.rest
        and _join(known.base, source.group or source.uri) == part["uri"]
    }
    theirs = {source.split for source in found if not source.rest}
    if not ours & theirs:
        return False
    if ours - theirs:
        raise RecipeError(
            f"{entry['uri']} has the splits {', '.join(sorted(theirs))} of dataset '{part['dataset']}', but "
            f"{part['uri']} in the lake has {', '.join(sorted(ours))}. Set another `dataset` for one of them: write a "
            "recipe with imagelake init, or edit the recipe of the lake."
        )
    return True


def _entries(
    paths: Sequence[str], root: str, base: Path
) -> tuple[list[tuple[dict[str, Any], list[str], list[Source]]], list[Source]]:
    """Make a `[[source]]` of every path, with comments and the sources it resolves to; and all of these together."""
    entries: list[tuple[dict[str, Any], list[str], list[Source]]] = []
    seen: set[tuple[str, str]] = set()
    uris = [absolute(path) for path in paths]
    for uri in dict.fromkeys(uri for uri in uris if "://" in uri or not is_labels_file(Path(uri))):
        if uri.encode("utf-8", "replace").decode() != uri:
            raise RecipeError(f"{readable_name(uri)}: the path is not UTF-8. Rename it.")
        found = _resolve(uri, root, base)
        splits = {source.split for source in found}
        name = _free_name(dataset_name(uri), uri, splits, seen)
        seen |= {(name, split) for split in splits}
        entry: dict[str, Any] = {"uri": uri, "dataset": name}
        comments: list[str] = []
        is_one_file = not (Path(uri).is_dir() or found[0].group)
        if is_one_file and len(found) == 1 and not found[0].folders:
            entry["split"] = found[0].split
        elif is_one_file and any(source.folders for source in found):
            entry["splits"] = {source.split: list(source.folders) or [EVERYTHING_ELSE] for source in found}
        else:
            comments = _comments([source for source in found if not source.rest])
        entries.append((entry, comments, found))
    return entries, [source for _, _, found in entries for source in found]


def _comments(found: Sequence[Source]) -> list[str]:
    folders: dict[str, list[str]] = {}
    for source in found:
        folders.setdefault(source.split, []).extend(f"{folder}/" for folder in source.folders)
    listed = [f"{split} ({', '.join(named)})" if named else split for split, named in folders.items()]
    return [
        f"# splits by content: {plain(', '.join(listed))}",
        '# split = "train"            # all of it is one split',
    ]


def _resolve(uri: str, root: str, base: Path) -> list[Source]:
    recipe = parse_recipe({"lake": {"root": root}, "source": [{"uri": uri}]}, base=base)
    return sources.resolve(recipe)


def _free_name(name: str, uri: str, splits: Iterable[str], seen: set[tuple[str, str]]) -> str:
    """Tell datasets apart that would be one: by the folder above, or else by a number."""
    candidates = [name, f"{dataset_name(os.path.dirname(uri.rstrip('/')))}-{name}"]  # noqa: PTH120 - may be an address
    candidates += [f"{name}-{number}" for number in range(2, len(seen) + 3)]
    wanted = list(splits)
    return next(one for one in candidates if not any((one, split) in seen for split in wanted))


def _check_place(place: str) -> None:
    """Refuse to put a lake among other files."""
    if storage.is_bucket(place) or not Path(place).exists():
        return
    if not Path(place).is_dir():
        raise LakeError(f"{place} is a file, not a lake. Name a folder with --into.")
    if not is_lake(place) and any(entry.name != ".lock" for entry in Path(place).iterdir()):
        raise LakeError(f"{place} holds files and no lake. Name another folder with --into.")


def _values(recipe: Recipe) -> dict[str, Any]:
    """Spell a recipe as TOML has it, without what is not set, its paths absolute."""
    values = recipe.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    values["source"] = [_with_absolute(recipe, part) for part in recipe.source]
    if "embedding" in values:
        values["embedding"] = [
            {**item, **{key: _join(recipe.base, item[key]) for key in ("uri", "paths") if key in item}}
            for item in values["embedding"]
        ]
    # A role that is as it is by default still is a role.
    values["split"] = [part.model_dump(mode="json", by_alias=True, exclude_defaults=True) for part in recipe.split]
    return {key: value for key, value in values.items() if value not in ({}, [])}


def _with_absolute(recipe: Recipe, part: SourcePart) -> dict[str, Any]:
    values: dict[str, Any] = part.model_dump(mode="json", by_alias=True, exclude_none=True)
    return values if part.format in ("glyphs", "digits") else {**values, "uri": _join(recipe.base, part.uri)}


def _join(base: Path, uri: str) -> str:
    return uri if "://" in uri else os.path.normpath(os.path.join(base, uri))  # noqa: PTH118 - a pattern is no path


def _toml(value: Any) -> str:  # noqa: ANN401 - whatever TOML holds
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(key)} = {_toml(item)}' for key, item in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON's strings are TOML's, but for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)
