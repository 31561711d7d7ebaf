"""Names of exported files, and the manifest that lists them.

An original file keeps its name, as far as it is safe on every system. A file that imagelake encodes is named after the
image: IMAGE_ID.png.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pipeline.arrays.exports.selection import Selection

MANIFEST = "manifest.csv"
# Extensions by format; the first is added to a name that has none of them.
_EXTENSIONS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"),
    "MPO": ("jpg", "jpeg", "mpo"),
    "PNG": ("png", "apng"),
    "GIF": ("gif",),
    "BMP": ("bmp", "dib"),
    "WEBP": ("webp",),
    "TIFF": ("tif", "tiff"),
    "PPM": ("ppm", "pgm", "pbm", "pnm", "pfm"),
    "AVIF": ("avif", "avifs"),
    "HEIF": ("heic", "heif", "hif"),
}
# Characters that some system forbids in a name, that cannot be seen, or that change the writing direction.
_UNSAFE = (
    r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\x{ad}\x{61c}\x{180e}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2060}-\x{206f}\x{feff}]'
)
# Names that Windows reserves for devices, and beginnings that hide a file or look like an option.
_RESERVED = r"(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])$|^[\s.~-]"
# A name may have 255 bytes on most systems; a character has at most 4.
_MAX_CHARACTERS = 50
_ID_DIGITS = 12


def name_files(rows: pl.DataFrame, within: Sequence[str] = (), *, dots: bool = True) -> pl.Series:
    """Choose a name for the file of every image.

    An unsafe character becomes `_`, and a name of more than 50 characters is cut. Names that are equal then, or differ
    only in case, have the first 12 digits of the image id added.

    Args:
        rows: as `Role.rows`.
        within: columns; only rows with the same values in them need different names.
        dots: whether a name may have a dot besides that of its extension.

    Returns:
        (n,) names, in the order of the rows.
    """
    base = pl.col("path").str.split("/").list.last()
    known = pl.concat_list("extensions", pl.lit([""])).list.contains(pl.col("extension").str.to_lowercase())
    stem = pl.when(known & (pl.col("extension") != "")).then("stem").otherwise("base")
    safe = stem.str.replace_all(_UNSAFE, "_").str.slice(0, _MAX_CHARACTERS)
    safe = safe if dots else safe.str.replace_all(".", "_", literal=True)
    digits = pl.col("image_id").bin.encode("hex")
    named = (
        rows.lazy()
        .select("image_id", "format", base.alias("base"), *within)
        .with_columns(
            stem=pl.col("base").str.replace(r"\.[A-Za-z0-9]{1,5}$", ""),
            extension=pl.col("base").str.extract(r"\.([A-Za-z0-9]{1,5})$").fill_null(""),
            extensions=pl.col("format").replace_strict(_EXTENSIONS, default=["png"], return_dtype=pl.List(pl.String)),
        )
        .select(
            *within,
            digits.alias("digits"),
            pl.col("format").is_not_null().alias("is_original"),
            pl.when(safe.str.contains(_RESERVED) | (safe == "")).then("_" + safe).otherwise(safe).alias("name"),
            pl.when(known & (pl.col("extension") != ""))
            .then("extension")
            .otherwise(pl.col("extensions").list.first())
            .alias("extension"),
        )
    )
    folded = (pl.col("name") + "." + pl.col("extension")).str.normalize("NFC").str.to_lowercase()
    key = pl.col("name").str.normalize("NFC").str.to_lowercase() if not dots else folded
    numbered = pl.col("name") + "-" + pl.col("digits").str.slice(0, _ID_DIGITS)
    occurs = pl.len().over([*within, key, "is_original"])
    name = pl.when(~pl.col("is_original")).then("digits").when(occurs > 1).then(numbered).otherwise("name")
    extension = pl.when("is_original").then("extension").otherwise(pl.lit("png"))
    return named.select((name + "." + extension).alias("file")).collect().to_series()


def write_manifest(folder: Path, selection: Selection, files: Sequence[pl.Series]) -> None:
    """Write manifest.csv: a row for each exported image, and for each one that the split dropped, without a file.

    A column attr:NAME has the values of the attribute NAME.

    Args:
        folder: the export.
        selection: what was exported.
        files: for each role, the file of every image, relative to the folder.
    """
    exported = [
        role.rows.with_columns(names.alias("file"), pl.lit(role.name).alias("role"))
        for role, names in zip(selection.roles, files, strict=True)
    ]
    columns = ["file", "path", "dataset", "split", "label", "role", "kept", "reason", "file_digest", "image_id"]
    columns += [name for name in selection.dropped.columns if name.startswith("attr:")]
    dropped = selection.dropped.with_columns(pl.lit(None, pl.String).alias("file"))
    rows = pl.concat([part.select(columns) for part in (*exported, dropped)])
    rows.with_columns(pl.col("file_digest", "image_id").bin.encode("hex")).write_csv(folder / MANIFEST)
