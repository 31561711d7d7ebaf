"""The recipe: a TOML file that lists what a build reads and makes. It is checked before the build starts.

An unknown key is an error that names the nearest known key. One error lists every fault of the recipe, with its place
and what to write.
"""

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pipeline import arguments, storage
from pipeline.addresses import identity
from pipeline.errors import RecipeError
from pipeline.hashing import digest_of
from pipeline.os_errors import advice_for
from pipeline.recipe.baselines import Baseline, BaselinePart, EpochsPart, dump_for_digest, parse_baseline
from pipeline.recipe.checks import Check, CheckPart
from pipeline.recipe.issues import KINDS, IssuesPart
from pipeline.recipe.naming import dataset_name
from pipeline.recipe.parts import (
    ROLES,
    AttributesPart,
    DecodePart,
    DedupPart,
    EmbeddingPart,
    Format,
    LakePart,
    Part,
    RolePart,
    SourcePart,
    SplitPart,
)
from pipeline.recipe.rules import is_unreachable, rule_with_pairs_of, stricter_rule

_Model = TypeVar("_Model", bound=BaseModel)


def describe_errors(error: ValidationError, model: type[BaseModel]) -> str:
    """Describe every error of a validation, in one line.

    Args:
        error: raised by pydantic.
        model: the model that was validated; it has the names of the known keys.

    Returns:
        The errors with their locations, separated by semicolons.
    """
    errors = error.errors()
    # A list whose items have errors is also reported as too short, which adds nothing.
    inner = {other["loc"][: len(short["loc"])] for short in errors for other in errors if other is not short}
    shown = (one for one in errors if not (one["type"] == "too_short" and one["loc"] in inner))
    return "; ".join(_describe(one, model) for one in shown)


def _describe(error: ErrorDetails, model: type[BaseModel]) -> str:
    kind, (loc, models) = error["type"], _resolve(error["loc"], model)
    where = _format(loc)
    if kind == "extra_forbidden":
        return f"unknown key {where}; {_nearest_or_all(str(loc[-1]), _known_keys(models), 'known keys')}"
    if kind == "union_tag_not_found":
        return f"{_format((*loc, _discriminator(error)))}: field required"
    if kind == "union_tag_invalid":
        found, known = str(error["ctx"]["tag"]), error["ctx"]["expected_tags"].replace("'", "").split(", ")
        name = _discriminator(error)
        return f"{_format((*loc, name))}: no {name} '{found}'; {_nearest_or_all(found, known, f'known {name}s')}"
    if kind == "tuple_type":
        table = isinstance(error["input"], dict)
        return f"{where}: write [[{where}]], with two brackets" if table else f"{where}: write a list, in brackets"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}" if where else message


def _nearest_or_all(found: str, known: list[str], title: str) -> str:
    near = difflib.get_close_matches(found, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"{title}: {', '.join(known)}"


def _discriminator(error: ErrorDetails) -> str:
    return str(error["ctx"]["discriminator"]).strip("'")


def _format(loc: tuple[int | str, ...]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc]
    return "".join(parts).removeprefix(".")


def _resolve(
    loc: tuple[int | str, ...], root: type[BaseModel]
) -> tuple[tuple[int | str, ...], tuple[type[BaseModel], ...]]:
    """Follow an error's location through the models.

    Returns:
        The location in the recipe, without the tags that pydantic inserts for the members of a union; and the models
        that the last key of the location belongs to. They are several only if the union has no member with the tag.
    """
    location: list[int | str] = []
    holders: tuple[type[BaseModel], ...] = (root,)
    models = holders
    for part in loc:
        if len(models) > 1 and isinstance(part, str):
            models = tuple(model for model in models if part in _tags(model)) or models
            continue
        location.append(part)
        holders = models
        if isinstance(part, str):
            fields = [f for model in models for name, f in model.model_fields.items() if part in (name, f.alias)]
            models = tuple(_models_in(fields[0].annotation)) if fields else ()
    return tuple(location), holders


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """List what may choose a model of a union: a value of one of its keys, or the name of a key that only it has."""
    values = (value for field in model.model_fields.values() for value in get_args(field.annotation))
    return (*model.model_fields, *values)


def _known_keys(models: tuple[type[BaseModel], ...]) -> list[str]:
    return sorted({f.alias or n for model in models for n, f in model.model_fields.items() if not f.exclude})


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - a typing construct
    """List the models in a type such as `tuple[SourcePart, ...]` or a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


# The recipe of a lake that was built from paths. It lies next to the tables.
RECIPE_FILE = "recipe.toml"

__all__ = [
    "RECIPE_FILE",
    "ROLES",
    "AttributesPart",
    "BaselinePart",
    "CheckPart",
    "Checks",
    "DecodePart",
    "DedupPart",
    "EmbeddingPart",
    "Format",
    "IssuesPart",
    "LakePart",
    "Recipe",
    "RolePart",
    "SourcePart",
    "SplitPart",
    "parse_baseline",
    "parse_recipe",
    "read_checks",
    "read_recipe",
]

# Keys that recipes before 0.6 do not have, by part. Their default is None.
_ADDED_KEYS = {"source": ("outside",), "decode": ("originals", "longest")}


class Recipe(Part):
    """A whole recipe.

    Attributes:
        lake: location of the tables.
        source: the sources of the images.
        decode: size and mode of the decoded images.
        attributes: facts about images.
        embedding: vectors for embedding rules.
        dedup: the rules that find duplicates.
        issues: what a person should look at, such as dark or blurry images. By default nothing is listed.
        split: the splits to draw.
        baseline: the models to train and score.
        check: what a release must satisfy. A build publishes a release that does not; `imagelake check` fails.
        base: the folder that relative paths start from. Not a key of the recipe.
        file: the file that the recipe was read from, if any. Not a key of the recipe.
    """

    lake: LakePart = LakePart()
    source: tuple[SourcePart, ...] = Field(min_length=1)
    decode: DecodePart = DecodePart()
    attributes: tuple[AttributesPart, ...] = ()
    embedding: tuple[EmbeddingPart, ...] = ()
    dedup: DedupPart = DedupPart()
    issues: IssuesPart | None = None
    split: tuple[SplitPart, ...] = ()
    baseline: tuple[Baseline, ...] = ()
    check: tuple[Check, ...] = ()
    base: Path = Field(default=Path(), exclude=True)
    file: Path | None = Field(default=None, exclude=True)

    @property
    def digest(self) -> str:
        """Digest of the recipe's values. Comments, spelling and the order of keys do not change it."""
        values = self.model_dump(mode="json", by_alias=True)
        # The same recipe with and without the secrets of its addresses has one digest. A key that came after version
        # 0.5 counts only if it is set, so that lakes of that version need no new release.
        values["source"] = [
            _without_unset("source", {**part, "uri": identity(part["uri"])}) for part in values["source"]
        ]
        values["decode"] = _without_unset("decode", values["decode"])
        for part in ("attributes", "issues", "check"):
            if not values[part]:
                del values[part]
        return digest_of({**values, "baseline": list(map(dump_for_digest, self.baseline))})

    @property
    def root(self) -> str:
        """Location of the lake: an absolute folder, or the URI as written."""
        root = self.lake.root or f"{self.file.stem if self.file else 'images'}-lake"
        return storage.normalized(root) if storage.is_bucket(root) else str((self.base / root).resolve())

    @property
    def rules(self) -> tuple[str, ...]:
        """Every rule of the recipe, each once: those of `dedup.rules` and those of the splits."""
        of_splits = (rule for part in self.split for rule in (*part.sanitize, *part.rule_groups))
        return tuple(dict.fromkeys([*self.dedup.rules, *of_splits]))

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        faults = [
            *_repeated("split", [part.name for part in self.split]),
            *_repeated("rule", list(self.dedup.rules)),
            *_conflicting(self.embedding),
        ]
        roles = {part.name: part.roles for part in self.split}
        faults += [
            f"baseline '{part.model}' needs split '{part.split}' to have the role train"
            for part in self.baseline
            if part.split in roles and "train" not in roles[part.split]
        ]
        faults += [
            f"baseline '{part.model}' predicts '{target}', but {_why_not_there(target, roles)}"
            for part in self.baseline
            for target in part.predict
            if _why_not_there(target, roles)
        ]
        faults += [
            f"baseline '{part.model}' {uses} the role valid, which split '{part.split}' does not have"
            for part in self.baseline
            for uses, applies in (
                ("stops early by", isinstance(part, EpochsPart) and part.patience is not None),
                ("finds its threshold (without folds) on", part.precision is not None and part.folds is None),
            )
            if applies and part.split in roles and "valid" not in roles[part.split]
        ]
        if len({digest_of(part.run_settings) for part in self.baseline}) != len(self.baseline):
            faults.append("two baselines are the same")
        faults += [
            f"split '{part.name}' {uses} '{rule}', {_why_not_stored(rule, self.dedup.rules)}"
            for part in self.split
            for uses, rules in (("sanitizes by", part.sanitize), ("groups by", part.rule_groups))
            for rule in rules
            if rule_with_pairs_of(rule, self.dedup.rules) is None
        ]
        listed = self.issues.thresholds if self.issues is not None else {}
        faults += [
            f"split '{part.name}' drops images by issue '{kind}', {_why_not_listed(kind, listed)}"
            for part in self.split
            for kind in part.drop_issues
            if kind not in listed
        ]
        # Not a check of the part: a lake of an earlier version may have such a split, and must still be read.
        faults += [
            f"split '{part.name}' has {key} = \"{value}\", but names no rules that it applies to: give it sanitize or "
            f"groups, such as sanitize = {list(self.dedup.rules[:1] or ('exact',))}"
            for part in self.split
            for key, value, default in (("within", part.within, "all"), ("conflicts", part.conflicts, "keep"))
            if value != default and not part.sanitize and not part.rule_groups
        ]
        faults += [
            f"baseline '{part.model}' trains on split '{part.split}', which no [[split]] defines"
            for part in self.baseline
            if part.split not in {split.name for split in self.split}
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self


def _without_unset(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the added keys of a part that are not set."""
    return {key: value for key, value in values.items() if value is not None or key not in _ADDED_KEYS[part]}


def _why_not_there(target: str, roles: Mapping[str, Mapping[str, RolePart]]) -> str:
    """Say why a split, or a role of it, cannot be predicted; empty if it can."""
    split, _, role = target.partition("/")
    if split not in roles:
        return f"there is no split '{split}'; {_nearest_or_all(split, list(roles), 'splits')}"
    if role and role not in roles[split]:
        return f"split '{split}' has no role '{role}'; its roles: {', '.join(roles[split])}"
    return ""


# Bytes of the largest recipe.
_MAX_BYTES = 2**24


class Checks(Part):
    """The checks of a file that has nothing else: no lake is built from it.

    Attributes:
        check: what a release must satisfy.
        file: the file, if any. Not a key of it.
    """

    check: tuple[Check, ...] = Field(min_length=1)
    file: Path | None = Field(default=None, exclude=True)


def read_checks(path: str | Path) -> Recipe | Checks:
    """Read the `[[check]]` of a recipe, or of a file without a `[[source]]`.

    Args:
        path: a TOML file.

    Raises:
        RecipeError: the file is missing, is not TOML, or has faults; the error lists all of them.
    """
    file = Path(arguments.place("path", path))
    values = _read_toml(file)
    if "source" in values:
        return parse_recipe(values, base=file.resolve().parent, file=file)
    return _validate(Checks, {**values, "file": file.resolve()}, file)


def read_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe.

    Args:
        path: a TOML file.

    Returns:
        The recipe; its relative paths start from the file's folder.

    Raises:
        RecipeError: the file is missing, is not TOML, or has faults; the error lists all of them.
    """
    file = Path(arguments.place("path", path))
    return parse_recipe(_read_toml(file), base=file.resolve().parent, file=file)


def _read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        RecipeError: it is missing, cannot be read, or is not TOML.
    """
    try:
        storage.check_regular(file)
        if file.stat().st_size > _MAX_BYTES:
            raise RecipeError(f"{file}: larger than {_MAX_BYTES >> 20} MiB, which no recipe is. Check the path.")
        # utf-8-sig: editors on Windows write a byte-order mark.
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RecipeError(f"{file}: no such recipe. Give the path of a TOML file, such as data/demo.toml.") from None
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        advice = advice_for(error) or "Save it as UTF-8, or check the path"
        raise RecipeError(f"{file}: the recipe cannot be read ({why}). {advice}.") from error
    except tomllib.TOMLDecodeError as error:
        # tomllib names the character that it cannot read, which mostly is the end of a line.
        message = re.sub(r"(Illegal|Found invalid) character '\\n'", "the line ends too early", str(error))
        raise RecipeError(f"{file}: not valid TOML: {message}. Correct the line and run again.") from error


def parse_recipe(values: Mapping[str, Any], *, base: Path, file: Path | None = None) -> Recipe:
    """Check a recipe that is already a dict.

    A source without a `dataset` gets a name made from its uri.

    Args:
        values: the content of the TOML file.
        base: the folder that relative paths start from.
        file: the file that the values were read from, if any. Errors name it.

    Raises:
        RecipeError: the recipe has faults; the error lists all of them.
    """
    return _validate(Recipe, {**_with_datasets(values, base), "base": base, "file": file and file.resolve()}, file)


def _validate(model: type[_Model], values: Mapping[str, Any], file: Path | None) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = describe_errors(error, model)
        raise RecipeError(f"{file or 'recipe'}: {faults}{'' if faults.endswith('?') else '.'}") from None


def _with_datasets(values: Mapping[str, Any], base: Path) -> Mapping[str, Any]:
    """Name the dataset of every source that has none. Values of a wrong type are left for the checks."""
    listed = values.get("source")
    if not isinstance(listed, list | tuple):
        return values

    def named(part: Any) -> Any:  # noqa: ANN401 - values are not checked yet
        if not isinstance(part, Mapping) or not isinstance(part.get("uri"), str) or part.get("dataset") is not None:
            return part
        uri = identity(part["uri"])
        # A relative uri such as "." or "train" is named after the recipe's folder.
        return {**part, "dataset": dataset_name(uri if "://" in uri or uri.startswith("/") else f"{base}/{uri}")}

    return {**values, "source": [named(part) for part in listed]}


def _conflicting(embeddings: tuple[EmbeddingPart, ...]) -> list[str]:
    """Find two files with vectors of the same images. A name may have several files, for different splits."""
    return [
        f"two embeddings are called '{one.name}' for the same images of dataset '{one.dataset}': set `split` for each"
        for at, one in enumerate(embeddings)
        for other in embeddings[:at]
        if (one.name, one.dataset) == (other.name, other.dataset)
        and (one.split == other.split or None in (one.split, other.split))
    ]


def _why_not_stored(rule: str, stored: tuple[str, ...]) -> str:
    """Explain why the stored pairs do not include the pairs of a rule."""
    stricter = stricter_rule(rule, stored)
    if stricter is None:
        kind, _, name = rule.partition(":")
        if name and kind in {"attribute", "attributes", "attrs"}:
            return f"which is no rule. Write 'attr:{name}' for the attribute '{name}'"
        if is_unreachable(rule):
            return "whose threshold no score can reach. Write one like those of dedup.rules"
        return f"which is not among dedup.rules {list(stored)}"
    return (
        f"which is looser than '{stricter}' of dedup.rules: pairs below its threshold are not stored. Use '{stricter}' "
        f"or a stricter threshold there, or put '{rule}' into dedup.rules"
    )


def _why_not_listed(kind: str, listed: Collection[str]) -> str:
    if kind in KINDS:
        return f"which [issues] does not list: write {kind} = true there" if listed else "but there is no [issues]"
    return f"which is no kind of issue; {_nearest_or_all(kind, list(KINDS), 'kinds')}"


def _repeated(what: str, names: list[str]) -> list[str]:
    return [f"two {what}s are called '{name}'" for name in sorted({n for n in names if names.count(n) > 1})]
