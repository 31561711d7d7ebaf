"""The rules that decide which images are duplicates: one module per family, chosen by `parse_rule`.

A rule turns a batch of pixels into entries of the index. Under file, exact, sign and maxpool, images with equal entries
are duplicates. The other rules are comparisons: entries give candidates, and a score decides. No pair is missed.

`index_images` makes rows of the index table.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import schemas
from pipeline.arrow_columns import from_binary, from_numbers, to_binary, to_numbers
from pipeline.dedup.rules import cosine, embedding, exact, file, hamming, maxpool, photo, sign
from pipeline.dedup.rules.comparison import Candidates, Comparison, Entries, FromPixels, Verified
from pipeline.errors import RecipeError
from pipeline.recipe.rules import FAMILIES, rule_known_as

__all__ = ["Candidates", "Comparison", "Entries", "Rule", "Verified", "parse_rule"]

Pixels = NDArray[np.uint8]

# From (n, height, width, channels) uint8 to (n, 16) uint8: images are duplicates if and only if their keys are equal.
Keys = Callable[[Pixels], Pixels]

# From the columns image_id and file_digest to keys.
FileKeys = Callable[[pa.Array, pa.Array | None], Pixels]

_BY_FILE: dict[str, Callable[[str | None], FileKeys]] = {"file": file.rule}
_BY_KEYS: dict[str, Callable[[str | None], Keys]] = {
    "exact": exact.rule,
    "sign": sign.rule,
    "maxpool": maxpool.rule,
}
_BY_COMPARISON: dict[str, Callable[[str | None], Comparison]] = {
    "hamming": hamming.rule,
    "cosine": cosine.rule,
    "photo": photo.rule,
    "embedding": embedding.rule,
}


@dataclass(frozen=True)
class Rule:
    """A rule, ready to run.

    Attributes:
        name: name in the recipe, such as "maxpool:4".
        describe: turns images of one shape, (n, height, width, channels) uint8, into entries of the index; a pure
            function of each image. None if the user provides the entries, or the encoded files decide.
        comparison: how images are compared; None if equal keys and signatures alone decide.
        describe_files: turns the columns image_id and file_digest into entries, for a rule about the encoded files.
    """

    name: str
    describe: Callable[[Pixels], Entries] | None
    comparison: Comparison | None = None
    describe_files: Callable[[pa.Array, pa.Array | None], Entries] | None = None

    def index(self, pixels: Pixels) -> Entries:
        """Make the entries of images of one shape. The rule must read pixels."""
        if self.describe is None:
            raise AssertionError(f"rule {self.name} is not indexed by pixels")
        return self.describe(pixels)


def parse_rule(name: str) -> Rule:
    """Make a rule from its name.

    Args:
        name: a family, and a colon and a parameter if the family has one: "exact", "sign", "maxpool:4".

    Returns:
        The rule.

    Raises:
        RecipeError: the family or the parameter is unknown. The message suggests the nearest name, also for methods of
            other tools, such as "phash".
    """
    family, colon, text = name.partition(":")
    parameter = text if colon else None
    if colon and family in FAMILIES and FAMILIES[family].spelling == family:
        raise RecipeError(f"rule '{name}': it takes no parameter; write {family}.")
    try:
        if family in _BY_KEYS:
            keys = _BY_KEYS[family](parameter)
            return Rule(name, lambda pixels: _hash_entries(keys(pixels)))
        if family in _BY_FILE:
            of_files = _BY_FILE[family](parameter)
            return Rule(name, None, describe_files=lambda ids, digests: _hash_entries(of_files(ids, digests)))
        if family in _BY_COMPARISON:
            comparison = _BY_COMPARISON[family](parameter)
            return Rule(name, comparison.index if isinstance(comparison, FromPixels) else None, comparison)
    except ValueError as error:
        raise RecipeError(f"rule '{name}': {error}.") from None
    known = ", ".join(family.spelling for family in FAMILIES.values())
    raise RecipeError(f"unknown rule '{name}'; {_suggestion(family, name)}Known rules: {known}.")


def _suggestion(family: str, name: str) -> str:
    if family.strip().lower() in FAMILIES:
        return f"did you mean '{name.strip().lower()}'? "
    if known := rule_known_as(name):
        return f"did you mean '{known[0]}' ({known[1]})? "
    near = difflib.get_close_matches(family, FAMILIES, n=1, cutoff=0.4)
    return f"did you mean '{near[0]}'? " if near else ""


def _hash_entries(keys: Pixels) -> Entries:
    """Make entries of 16-byte keys: the first half of each is `key`, the second half `signature`."""
    halves = np.ascontiguousarray(keys).view(">i8").astype(np.int64)
    return Entries(halves[:, 0], halves[:, 1], np.empty((len(halves), 0), np.uint8))


# Raise this if the keys of all rules change for the same pixels. Every lake then indexes its images again.
KEYS_VERSION = "2"
# Raise a family's version if only its entries or scores change. Every lake then makes these again for its rules. A
# family that is not listed has version 1.
_FAMILY_VERSIONS = {"cosine": "2", "photo": "3"}


def keys_version(rule: str) -> str:
    """Return the version of a rule's index entries and scores. Fingerprints of its pairs and clusters contain it."""
    own = _FAMILY_VERSIONS.get(_family(rule))
    return KEYS_VERSION if own is None else f"{KEYS_VERSION}, {_family(rule)} {own}"


def keys_unit() -> dict[str, Any]:
    """Return what the metadata of the index record of the versions of its keys."""
    return {"fingerprint": KEYS_VERSION, "families": _FAMILY_VERSIONS}


def has_current_keys(rule: str, unit: Mapping[str, Any] | None) -> bool:
    """Return whether an index holds the keys that this version makes of a rule.

    Args:
        rule: the rule.
        unit: what the index's metadata record of the versions, see `keys_unit`; None if they record none, in which case
            the families have version 1.
    """
    known: Mapping[str, Any] = {"fingerprint": KEYS_VERSION} if unit is None else unit
    family = _family(rule)
    stored, own = (versions.get(family, "1") for versions in (known.get("families", {}), _FAMILY_VERSIONS))
    return known["fingerprint"] == KEYS_VERSION and stored == own


def _family(rule: str) -> str:
    return rule.partition(":")[0]


def index_images(rule: Rule, images: pa.Table, pixels: NDArray[np.uint8]) -> pa.Table:
    """Index rows of the images table under a rule.

    Args:
        rule: the rule.
        images: columns image_id, label and, but for files of imagelake 0.5, file_digest; each in one chunk.
        pixels: (n, height, width, channels) uint8, in the order of the rows.

    Returns:
        As `index_table`.
    """
    ids, labels = images["image_id"].chunk(0), images["label"].chunk(0)
    if rule.describe_files is None:
        return index_table(rule, ids, labels, pixels)
    digests = images["file_digest"].chunk(0) if "file_digest" in images.column_names else None
    return table_of(rule.describe_files(ids, digests), ids, labels)


def index_table(rule: Rule, image_ids: pa.Array, labels: pa.Array, pixels: NDArray[np.uint8]) -> pa.Table:
    """Index a batch of images under a rule.

    Args:
        rule: the rule.
        image_ids: binary, in the order of the pixels.
        labels: string, in the order of the pixels.
        pixels: (n, height, width, channels) uint8.

    Returns:
        Rows of the index table without its partition columns, in the order of the pixels.
    """
    return table_of(rule.index(pixels), image_ids, labels)


def table_of(entries: Entries, image_ids: pa.Array, labels: pa.Array) -> pa.Table:
    """Write entries as rows of the index table without its partition columns, in the order of the entries."""
    count, width = entries.vector.shape
    bucket = ((entries.key >> np.int64(56)) & np.int64(0xFF)).astype(np.int16)
    vector = to_binary(entries.vector) if width else pa.nulls(count, pa.binary())
    numbers = [to_numbers(values) for values in (bucket, entries.key, entries.signature)]
    columns = [*numbers, vector, image_ids, labels]
    return pa.Table.from_arrays(columns, schema=schemas.TABLES["index"].file_schema)


def entries_of(rows: pa.Table) -> Entries:
    """Read entries from rows of the index table, in the order of the rows. All vectors must have the same width."""
    key, signature = (from_numbers(rows[name]) for name in ("key", "signature"))
    vector = pa.concat_arrays(rows["vector"].chunks) if rows.num_rows else pa.nulls(0, pa.binary())
    width = 0 if vector.null_count == len(vector) else len(vector[0].as_py())
    return Entries(key, signature, from_binary(vector, width) if width else np.empty((len(key), 0), np.uint8))


# By rule whose entries the images table holds, the columns that they are made of.
IMAGE_COLUMNS = {"exact": ("content_hash",), "file": ("file_digest",)}


def entries_of_images(rule: str, images: pa.Table) -> Entries:
    """Make the entries of a rule of `IMAGE_COLUMNS` without pixels.

    Args:
        rule: exact or file.
        images: the columns image_id and `IMAGE_COLUMNS[rule]`.
    """
    ids, hashes = (
        pa.concat_arrays(
            [pa.array([], pa.large_binary()), *(chunk.cast(pa.large_binary()) for chunk in images[name].chunks)]
        )
        for name in ("image_id", *IMAGE_COLUMNS[rule])
    )
    describe = parse_rule(rule).describe_files
    return _hash_entries(from_binary(hashes, 16)) if describe is None else describe(ids, hashes)


def sort_index(tables: list[pa.Table]) -> pa.Table:
    """Concatenate the batches of a shard and order them by bucket, key and image_id."""
    return pa.concat_tables(tables).sort_by([("bucket", "ascending"), ("key", "ascending"), ("image_id", "ascending")])
