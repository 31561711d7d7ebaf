"""`Lake`, the Python API to read a lake: tables, SQL, arrays and training batches of one release."""

import difflib
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
import polars as pl
from numpy.typing import NDArray

import schemas
from pipeline import arguments, storage
from pipeline.arrays.epoch import Batches, Plan, State
from pipeline.arrays.feed import BUFFER_BYTES, Feed, Images
from pipeline.arrays.read_as import DecodeFrom, Fit, RaggedAs, ReadAs
from pipeline.arrays.spill import SPILL_BYTES, SpillFile
from pipeline.decode.conversions import decode_originals, resize_stored
from pipeline.diff import IMAGE_COLUMNS, Diff, Side, compare_releases
from pipeline.errors import BaselineError, LakeError, QueryError
from pipeline.hashing import flat
from pipeline.id_index import IdIndex, id_series
from pipeline.labels import CORRECTED, label_in_split
from pipeline.lake.duckdb_views import connect, query
from pipeline.lake.reads import check_values, explain_failures
from pipeline.lake.releases import recorded_recipe, release_snapshot, release_versions, releases_stamp, stored_decode
from pipeline.lake.snapshot import Snapshot
from pipeline.pixels import (
    Conversion,
    Located,
    gather,
    gather_ragged,
    id_matrix,
    locate,
    normalise,
    padded,
)
from pipeline.recipe import DecodePart

if TYPE_CHECKING:
    import duckdb

    from pipeline.baselines.stored import LoadedModel
    from pipeline.search.find import Found
    from pipeline.search.index import KeptIndexes
    from pipeline.search.verdicts import Verdicts
    from pipeline.search.why import Why


# The most that a recipe allows.
_MAX_PIXELS = 500_000_000


class Lake:
    """A lake at one release. All methods read the same versions of the tables, even while builds run.

    Args:
        root: the lake's place: a folder, or `s3://bucket/prefix`.
        release: number of the release; None for the newest.

    Raises:
        NoReleaseError: there is no lake at this place, no finished build, or no such release.
        NewerLakeError: a newer imagelake made the lake.
        TypeError: an argument has another type; so in every method. The message says what is expected.
    """

    # Indexes that `find` has read.
    _kept: "KeptIndexes | None" = None

    def __init__(self, root: str | Path, release: int | None = None) -> None:
        self.root = storage.normalized(arguments.place("root", root))
        if not self.root:
            raise LakeError("root is empty: name the folder of a lake, or s3://bucket/prefix.")
        release = None if release is None else arguments.whole_number("release", release)
        newest = Snapshot(self.root)
        self._stamp = releases_stamp(newest)
        self.release, self.versions = release_versions(newest, release)
        self.snapshot = release_snapshot(newest, self.versions)
        # By table, where its images are; made by `read`.
        self._ids: dict[str, IdIndex] = {}

    @classmethod
    def working(cls, snapshot: Snapshot) -> Self:
        """Open the tables of a snapshot that may not be published. Only builds and checks use this."""
        lake = cls.__new__(cls)
        lake.root, lake.snapshot = snapshot.place, snapshot
        lake.release, lake.versions, lake._stamp, lake._ids = 0, {}, 0, {}  # noqa: SLF001 - of its own class
        return lake

    def __repr__(self) -> str:
        return f"Lake({self.root!r}, release={self.release})"

    def at(self, release: int) -> "Lake":
        """Open the same lake at another release.

        Raises:
            NoReleaseError: there is no such release.
        """
        return Lake(self.root, arguments.whole_number("release", release))

    @explain_failures
    def diff(self, since: int) -> Diff:
        """Compare another release with this one. Reads ids, digests and labels; no pixels.

        Args:
            since: number of the release to compare with, usually an earlier one.

        Returns:
            The images that were added, gone, relabelled, moved, newly dropped or newly kept, or that changed their
            role; the clusters that were merged or split; and the scores that differ. One frame for each.

        Raises:
            NoReleaseError: there is no such release, or vacuum has deleted one of the two.
            DamagedLakeError: a file is missing or damaged.
        """
        other = self.at(since)
        for lake, table in product((self, other), ("rejects", "splits", "clusters", "issues", "scores")):
            lake.check(table)
        now, before = self._current_snapshot(), other.snapshot
        there = {part.path for part in now.files("images")}
        check_values(now, "images", IMAGE_COLUMNS)
        check_values(
            before, "images", IMAGE_COLUMNS, [part for part in before.files("images") if part.path not in there]
        )
        return compare_releases(
            Side(other.release, other.recipe, other.scan, lambda table: before.scan_changed(table, now)),
            Side(self.release, self.recipe, self.scan, lambda table: now.scan_changed(table, before)),
        )

    @property
    def recipe(self) -> dict[str, Any]:
        """The values of the recipe that this release was built from; empty if they are not recorded."""
        try:
            return dict(recorded_recipe(Snapshot(self.root), self.release)["values"])
        except LakeError as error:
            if type(error) is not LakeError:  # damage, or a release that is gone
                raise
            return {}

    def scan(self, table: str) -> pl.LazyFrame:
        """Scan a table.

        Args:
            table: images, originals, rejects, shards, attributes, index, pairs, bases, clusters, measurements, issues,
                splits, scores, misses, models, predictions, verdicts, releases or exports.
                The last two are not part of a release: the scan returns the releases up to this one, and all exports.

        Returns:
            Every column of the table, rows in the order of their partitions.

        Raises:
            LakeError: there is no such table. The message has the nearest name.
            NoReleaseError: vacuum has deleted this release.
        """
        _check_table(table)
        rows = self._current_snapshot().scan(table)
        return rows.filter(pl.col("release") <= self.release) if table == "releases" and self.release else rows

    def sql(self, text: str, *, ids: Literal["bytes", "hex"] = "bytes") -> "duckdb.DuckDBPyRelation":
        """Query all tables by name with DuckDB.

        Args:
            text: one SELECT statement. It can neither write nor read files outside the lake.
            ids: "bytes" returns ids and hashes as 16 bytes, "hex" as text of 32 hexadecimal digits, as `imagelake sql`
                does.

        Raises:
            QueryError: the statement is not allowed, or DuckDB reports an error.
            NoReleaseError: vacuum has deleted this release.
        """
        arguments.text("text", text)
        if ids not in ("bytes", "hex"):
            raise QueryError(f"ids is {ids!r}; it must be 'bytes' or 'hex'")
        return query(connect(self._current_snapshot(), ids=ids), text)

    def _current_snapshot(self) -> Snapshot:
        """Return the snapshot to read, with the newest versions of the tables releases and exports.

        Raises:
            NoReleaseError: vacuum has deleted this release.
        """
        if self.release and (now := releases_stamp(self.snapshot, self._stamp)) != self._stamp:
            release_versions(Snapshot(self.root), self.release)
            self._stamp = now
        return self.snapshot.with_newest("releases", "exports") if self.release else self.snapshot

    @explain_failures
    def class_names(self, split: str) -> list[str]:
        """List the class names of a split. The name at position i belongs to label i."""
        arguments.text("split", split)
        rows = self.scan("splits").filter(split_name=split).drop_nulls("label_index")
        one_of_each = rows.group_by("label_index").agg(pl.col("image_id", *CORRECTED).first()).collect()
        images = self.scan("images").select("image_id", "label")
        named = one_of_each.lazy().join(images, on="image_id").sort("label_index").select(label_in_split()).collect()
        return named["label"].to_list()

    @explain_failures
    def target_names(self, attribute: str) -> list[str]:
        """List the values of an attribute in the lake, as text, sorted: the columns of `targets` in `arrays`.

        Raises:
            LakeError: no image has the attribute.
        """
        arguments.text("attribute", attribute)
        names: list[str] = self._values(attribute).select("value").unique().sort("value").collect()["value"].to_list()
        if not names:
            known = self.scan("attributes").select("name").unique().sort("name").collect()["name"]
            listed = ", ".join(known) or "none; add an [[attributes]] to the recipe"
            raise LakeError(f"{self.root}: no image has the attribute '{attribute}'. Attributes: {listed}.")
        return names

    def _values(self, attribute: str) -> pl.LazyFrame:
        return self.scan("attributes").filter(name=attribute).select("image_id", "value")

    def _labels(self, rows: pl.DataFrame, targets: str | None, *, check: bool) -> NDArray[Any]:
        """Return the labels of a role, or the values that its images have of an attribute; see `arrays`."""
        if targets is None:
            return rows["label_index"].cast(pl.Int64).fill_null(-1).to_numpy()
        if check:
            self.check("attributes")
        names = self.target_names(targets)
        found = (
            rows.select("image_id").with_row_index("row").lazy().join(self._values(targets), on="image_id").collect()
        )
        out = np.zeros((len(rows), len(names)), np.uint8)
        out[found["row"].to_numpy(), pl.Series(names).search_sorted(found["value"]).to_numpy()] = 1
        return out

    @explain_failures
    def members(self, split: str, role: str, *, sanitized: bool = True, check: bool = True) -> pl.DataFrame:
        """List the images of a role.

        Args:
            split: name of the split.
            role: train, valid or test.
            sanitized: only the images that sanitizing kept; False for all images of the role.
            check: check the files of the split for damage.

        Returns:
            Columns image_id, label_index and kept, ordered by rank.

        Raises:
            LakeError: the lake has no such split, or the split has no such role.
            DamagedLakeError: a file of the split is missing or damaged.
        """
        arguments.text("split", split)
        arguments.text("role", role)
        arguments.true_or_false("sanitized", sanitized)
        if arguments.true_or_false("check", check):
            self.check("splits", split=split)
        rows = self.scan("splits").filter(split_name=split, role=role).sort("rank").collect()
        if rows.is_empty():
            roles = self.scan("splits").select("split_name", "role").unique().sort("split_name", "role").collect()
            listed = ", ".join(f"{name}/{found}" for name, found in roles.rows()) or "none"
            raise LakeError(f"{self.root} has no images in split '{split}', role '{role}'. There are: {listed}.")
        return rows.filter("kept" if sanitized else pl.lit(value=True)).select("image_id", "label_index", "kept")

    def check(self, table: str, *, split: str | None = None) -> None:
        """Check the files of a table for damage: each must have the bytes that its commit recorded.

        A file that this process has checked is checked again only if it has changed. Files of lakes before 0.6 are
        checked by the checksums of their pages.

        Args:
            table: table name.
            split: of the table splits, only the files of this split.

        Raises:
            DamagedLakeError: a file is missing or damaged.
            LakeError: there is no such table.
        """
        _check_table(table)
        if split is not None:
            arguments.text("split", split)
        storage.check_files(
            self._current_snapshot().file_places(table, lambda part: split in (None, part.get("split_name")))
        )

    @overload
    def arrays(
        self,
        split: str,
        role: str,
        *,
        sanitized: bool = ...,
        normalised: Literal[False] = ...,
        size: tuple[int, int] | None = ...,
        fit: Fit = ...,
        decode: DecodeFrom = ...,
        ragged: Literal["pad"] | None = ...,
        targets: None = ...,
        check: bool = ...,
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]: ...
    @overload
    def arrays(
        self,
        split: str,
        role: str,
        *,
        sanitized: bool = ...,
        normalised: Literal[True],
        size: tuple[int, int] | None = ...,
        fit: Fit = ...,
        decode: DecodeFrom = ...,
        ragged: Literal["pad"] | None = ...,
        targets: None = ...,
        check: bool = ...,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...
    @overload
    def arrays(
        self,
        split: str,
        role: str,
        *,
        sanitized: bool = ...,
        normalised: Literal[False] = ...,
        ragged: Literal["list"],
        targets: None = ...,
        check: bool = ...,
    ) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64]]: ...
    @overload
    def arrays(
        self,
        split: str,
        role: str,
        *,
        sanitized: bool = ...,
        normalised: bool = ...,
        size: tuple[int, int] | None = ...,
        fit: Fit = ...,
        decode: DecodeFrom = ...,
        ragged: RaggedAs | None = ...,
        targets: str,
        check: bool = ...,
    ) -> tuple[Any, NDArray[np.uint8]]: ...
    def arrays(  # noqa: PLR0913 - how pixels are read
        self,
        split: str,
        role: str,
        *,
        sanitized: bool = True,
        normalised: bool = False,
        size: tuple[int, int] | None = None,
        fit: Fit = "stretch",
        decode: DecodeFrom = "stored",
        ragged: RaggedAs | None = None,
        targets: str | None = None,
        check: bool = True,
    ) -> tuple[NDArray[np.uint8] | NDArray[np.float32] | list[NDArray[np.uint8]], NDArray[Any]]:
        """Read all images of a role as arrays, ordered by rank.

        Args:
            split: name of the split.
            role: train, valid or test.
            sanitized: only the images that sanitizing kept; False for all images of the role.
            normalised: return pixels as float32 from -0.5 to 0.5, (p - 127.5) / 255, instead of uint8 from 0 to 255.
            size: (height, width) to which every image is brought when it is read.
            fit: how, as in the recipe's `[decode]`: "stretch", "crop" the middle, or "pad" with the lake's background.
            decode: with `size`: "stored" resizes the stored pixels, "original" decodes the original files again.
            ragged: how to return images of several shapes: "list" as a list of arrays, "pad" as one array of the
                largest height and width, with zeros to the right and below.
            targets: an attribute of several values an image, such as "labels": return it instead of the labels.
            check: check the files that are read for damage; see `check`.

        Returns:
            Pixels (n, height, width) of gray images or (n, height, width, 3) of RGB images, or a list of n such arrays;
            and labels (n,) int64: positions in `class_names(split)`, or -1 for an image without a label. With
            `targets`, (n, names) uint8 in the order of `target_names(targets)`: 1 if the image has the value, else 0.

        Raises:
            LakeError: there is no such split, role or attribute; its images differ in shape, and neither `size` nor
                `ragged` is given; or the lake does not have the originals.
            DamagedLakeError: a file is missing or damaged.
        """
        arguments.true_or_false("normalised", normalised)
        way = ReadAs.checked(size, fit, decode, ragged)
        rows = self.members(split, role, sanitized=sanitized, check=check)
        labels = self._labels(rows, targets, check=check)
        if normalised and way.ragged == "list":
            raise LakeError('normalised = True needs images of one shape: take ragged = "pad" or a size.')
        where = self._locate(rows["image_id"], way, check=check)
        if way.ragged == "list":
            return list(gather_ragged(where).pictures()), labels
        pixels = padded(list(gather_ragged(where).pictures())) if way.ragged == "pad" else gather(where)
        return normalise(pixels) if normalised else pixels, labels

    def read(  # noqa: PLR0913 - how pixels are read
        self,
        image_ids: pl.Series | Sequence[bytes | str],
        *,
        size: tuple[int, int] | None = None,
        fit: Fit = "stretch",
        decode: DecodeFrom = "stored",
        ragged: RaggedAs | None = None,
        check: bool = True,
    ) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        """Read images by their ids, such as those that a query returns.

        The first call reads the ids of all images and keeps them, 36 bytes each. Later calls read only the row groups
        that hold the images.

        Args:
            image_ids: ids, as 16 bytes or 32 hexadecimal digits; none twice.
            size: as in `arrays`; so are `fit`, `decode`, `ragged` and `check`.
            fit: as in `arrays`.
            decode: as in `arrays`.
            ragged: as in `arrays`.
            check: as in `arrays`.

        Returns:
            Pixels (n, height, width) of gray images or (n, height, width, 3) of RGB images, uint8 from 0 to 255, or a
            list of n such arrays, in the order of the ids.

        Raises:
            LakeError: an id is of no image or given twice; or the images differ in shape, and neither `size` nor
                `ragged` is given; or the lake does not have the originals.
            DamagedLakeError: a file is missing or damaged.
        """
        way = ReadAs.checked(size, fit, decode, ragged)
        ids = id_series(image_ids)
        if ids.is_empty():
            channels = () if self._mode() == "L" else (3,)
            return [] if ragged == "list" else np.empty((0, *(size or (0, 0)), *channels), np.uint8)
        table = "images" if way.decode == "stored" else "originals"
        if table not in self._ids:
            self._ids[table] = IdIndex(self._current_snapshot().file_places(table), with_shapes=table == "images")
        where = self._ids[table].locate(
            ids, check=check, conversion=self._conversion(way), ragged=way.ragged is not None
        )
        if way.ragged is None:
            return gather(where)
        pictures = list(gather_ragged(where).pictures())
        return pictures if way.ragged == "list" else padded(pictures)

    @explain_failures
    def _locate(self, image_ids: pl.Series, way: "ReadAs", *, check: bool) -> Located:
        """Find images, to be read as an argument of the caller says."""
        if way.ragged is not None:
            return locate(self._images, image_ids, check=check, ragged=True)
        if way.decode == "stored":
            return locate(self._images, image_ids, check=check, conversion=self._conversion(way))
        if check:
            self.check("originals")
        places = self.snapshot.file_places("originals")
        ids = pl.LazyFrame({"image_id": image_ids})
        missing = ids.join(self.scan("originals"), on="image_id", how="anti").collect().height
        if missing:
            raise LakeError(
                f"{self.root} does not have the original files of {missing:,} of {len(image_ids):,} images. Set "
                'originals = "keep" in [decode] of the recipe and build again, or read the stored pixels with '
                'decode = "stored".'
            )
        return locate(places, image_ids, check=check, conversion=self._conversion(way))

    def _conversion(self, way: "ReadAs") -> Conversion | None:
        if way.size is None:
            return None
        stored = stored_decode(self._current_snapshot())
        spec = DecodePart(
            size=way.size,
            fit=way.fit,
            mode=stored.get("mode") or self._mode(),
            on_mismatch="convert",
            background=stored.get("background", 255),
            # JPEGs are decoded at reduced scale in every lake with this setting.
            originals="keep",
            max_pixels=_MAX_PIXELS,
        )
        return resize_stored(spec) if way.decode == "stored" else decode_originals(spec)

    @explain_failures
    def _mode(self) -> Literal["L", "RGB"]:
        """Return the mode of the images, in a lake whose recipe does not store it."""
        return "L" if self.scan("images").select("channels").head(1).collect().item() == 1 else "RGB"

    @property
    def _images(self) -> list[str]:
        return self.snapshot.file_places("images")

    def model(self, run: str | None = None, train_size: int | None = None) -> "LoadedModel":
        """Load a model that a baseline of the recipe trained.

        Args:
            run: MODEL@SPLIT, such as "lenet@main"; None for the best, by its accuracy on the sanitized test role.
            train_size: number of training images; None for the largest of the run.

        Raises:
            BaselineError: the lake has no such model.
            MissingExtraError: the model needs a library that is not installed.
            DamagedLakeError: a file is missing or damaged.
        """
        from pipeline.baselines.stored import choose_model, load_model  # noqa: PLC0415 - slow, and rarely used

        self.check("models")
        run = None if run is None else arguments.text("run", run)
        train_size = None if train_size is None else arguments.whole_number("train_size", train_size)
        return load_model(choose_model(self.scan, self.root, run, train_size))

    def predict(
        self, pixels: NDArray[np.uint8], *, run: str | None = None, train_size: int | None = None
    ) -> pl.DataFrame:
        """Predict the classes of images with a model of the lake.

        Args:
            pixels: (n, height, width) or (n, height, width, 3), 0 to 255, of the shape that the model was trained on.
            run: as in `model`.
            train_size: as in `model`.

        Returns:
            n rows in the order of `pixels`: predicted, the class; probability of it, 0 to 1, null if the model has
            none; class_scores, the score of every class in the order of `model(...).names`.

        Raises:
            TypeError: `pixels` is no array.
            BaselineError: as in `model`, or the images have another shape.
        """
        from pipeline.baselines.stored import predict_classes  # noqa: PLC0415 - slow, and rarely used

        loaded = self.model(run, train_size)
        height, width, channels = loaded.shape
        wanted = (height, width) if channels == 1 else loaded.shape
        if not isinstance(pixels, np.ndarray):
            raise TypeError(
                f"pixels must be an array (numpy.ndarray), not {type(pixels).__name__}. To predict files, run: "
                f"imagelake predict {self.root} FILE..."
            )
        if pixels.dtype != np.uint8 or pixels.shape[1:] != wanted:
            raise BaselineError(
                f"{loaded.title} takes uint8 pixels of shape (n, {', '.join(map(str, wanted))}), but these are "
                f"{pixels.dtype} of shape {pixels.shape}."
            )
        return predict_classes(loaded, flat(pixels), with_scores=True)

    def find(
        self,
        images: "str | Path | NDArray[np.uint8] | Sequence[str | Path | NDArray[np.uint8]]",
        *,
        rule: str | None = None,
        top: int | None = None,
    ) -> "Found":
        """Find the images that a picture duplicates; nothing is written.

        The answers are those of a build with the picture as a file of another source. The indexes that were used last
        stay in memory for the next call, 256 MiB at most.

        Args:
            images: an image file, what `build` reads (a folder, an archive, a table), pixels of shape (height, width)
                or (height, width, 3) uint8, or several of these.
            rule: a rule of the lake, or a stricter threshold of one; exact and file in any lake. None for all of the
                lake, without those that compare the user's vectors.
            top: for each picture and rule, only this many matches, the closest. All have the rule's score or more.

        Returns:
            An object with matches, a DataFrame: query (name of the picture), number (its position, counted from 0),
            rule, score (float32; 1 under rules that compare keys), image_id, path, label, dataset, split; queries, the
            names of the pictures that were compared; unmatched, those without a match; rejects, the files that a build
            would reject, with the reason; and skipped, the rules that pictures cannot be compared by, with the reason.

        Raises:
            TypeError: `images` is something else.
            LakeError: the lake has no such rule; the message gives the nearest one.
            DamagedLakeError: a file of the lake is missing or damaged.
        """
        from pipeline.search.find import find_duplicates  # noqa: PLC0415 - slow, and rarely used
        from pipeline.search.index import KeptIndexes  # noqa: PLC0415 - the same

        if rule is not None:
            arguments.text("rule", rule)
        if top is not None and arguments.whole_number("top", top) < 1:
            raise LakeError(f"top is {top}; it must be 1 or more.")
        listed = [images] if isinstance(images, str | Path | np.ndarray) else list(images)
        queries = [_query(image) for image in listed]
        self._current_snapshot()
        self._kept = self._kept or KeptIndexes()
        return find_duplicates(self, queries, rule=rule, top=top, kept=self._kept)

    def why(self, item: str | bytes) -> "Why":
        """Explain the images that have a path, an id or a digest. Reads no pixels.

        Args:
            item: a path in the source, such as "A/1.png"; an image_id or content_hash, as 16 bytes or 32 hexadecimal
                digits; the SHA-256 of a file, as 32 bytes or 64 digits.

        Returns:
            An object with images, a dict for each image (100 at most; more is the number of others), and rejects, a
            dict for each reject of the path. Ids are hexadecimal digits; other images are dicts of image_id, path,
            label, dataset and split. An image has its columns of the table images; source, the uri it was read from;
            since, the release from which on it is in the lake, and or_earlier, whether older releases were deleted;
            attributes, original, issues, misses and predictions, the rows of these tables; and

            - verdicts: what people decided about it, also since the release: verdict, label, other_file_digest, who,
              created_at, note, rule, score, and counts (whether it is the newest about its picture or pair);
            - clusters: by rule, representative, images (how many), by (pairs, equal keys or verdicts), chain (the
              shortest path of pairs to the representative: image and score of each step, None for equal constant
              images), pairs (how many it has), closest (10 of them) and others (10 images of the cluster);
            - roles: by split, the columns of the table splits, and chain, the path to the image it was dropped for.

        Raises:
            LakeError: no image and no reject has it; the message gives the nearest paths.
        """
        from pipeline.search.why import explain  # noqa: PLC0415 - slow, and rarely used

        return explain(self, item.hex() if isinstance(item, bytes) else arguments.text("item", item))

    def decide(  # noqa: PLR0913 - a verdict
        self,
        verdict: str,
        item: str | bytes,
        other: str | bytes | None = None,
        *,
        label: str | None = None,
        note: str | None = None,
        who: str | None = None,
    ) -> bytes:
        """Record a verdict of a person about a picture or a pair; the next build honours it.

        It is about the file, not the path: copies and moved files have the same verdict. It is written at once, also
        while a build runs. The newest verdict about a picture or pair counts.

        Args:
            verdict: of a picture "keep", "drop", "label" or "wrong_label"; of a pair "same" or "different"; of either
                "not_sure".
            item: a path, image_id or digest, as in `why`.
            other: the other picture of a pair.
            label: the right label, of the verdict "label".
            note: a remark.
            who: who decides; None for the name of the user.

        Returns:
            The verdict_id, 16 bytes.

        Raises:
            LakeError: the verdict is not possible, or no image, or more than one picture, has this path.
            DiskFullError: no space is left.
        """
        from pipeline.search.verdicts import decide  # noqa: PLC0415 - rarely used

        items = [
            name.hex() if isinstance(name, bytes) else arguments.text("item", name)
            for name in (item, other)
            if name is not None
        ]
        return decide(self, verdict, items[0], items[1] if other is not None else None, label, note, who)

    def verdicts(self) -> "Verdicts":
        """List what people decided, also since this release.

        Returns:
            An object with standing and conflicts, frames with the columns of the table verdicts, path and other_path;
            and the numbers gone, waiting and made.

        Raises:
            DamagedLakeError: a file of the lake is missing or damaged.
        """
        from pipeline.search.verdicts import list_verdicts  # noqa: PLC0415 - rarely used

        return list_verdicts(self)

    def batches(  # noqa: PLR0913 - the arguments of a training loop
        self,
        split: str,
        role: str,
        *,
        batch_size: int,
        seed: int = 0,
        epoch: int = 0,
        sanitized: bool = True,
        buffer_bytes: int = BUFFER_BYTES,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        size: tuple[int, int] | None = None,
        fit: Fit = "stretch",
        decode: DecodeFrom = "stored",
        ragged: RaggedAs | None = None,
        targets: str | None = None,
        check: bool = True,
        state: Mapping[str, str | int | bool] | None = None,
    ) -> Batches:
        """Return one epoch of a role as shuffled batches. For several epochs, use `feed`, which reads less.

        Args:
            split: name of the split.
            role: train, valid or test.
            batch_size: as in `feed`.
            seed: any integer.
            epoch: any integer. Every epoch has another order.
            sanitized: only the images that sanitizing kept.
            buffer_bytes: as in `feed`.
            rank: as in `feed`.
            world_size: as in `feed`.
            drop_last: as in `feed`.
            size: as in `arrays`.
            fit: as in `arrays`.
            decode: as in `arrays`.
            ragged: as in `feed`.
            targets: as in `arrays`.
            check: as in `feed`.
            state: the result of `state()` of such an iterator, to continue after its last batch.

        Returns:
            An iterator of pixels (batch, height, width[, 3]) uint8, and labels (batch,) int64 or, with `targets`,
            (batch, names) uint8.

        Raises:
            FeedError: the state belongs to other batches, or a number is out of range; the message names it.
            LakeError: as in `arrays`.
        """
        feed = self.feed(
            split,
            role,
            batch_size=batch_size,
            seed=seed,
            sanitized=sanitized,
            buffer_bytes=buffer_bytes,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
            size=size,
            fit=fit,
            decode=decode,
            ragged=ragged,
            targets=targets,
            check=check,
            # Nothing would be read from it.
            spill_bytes=0,
        )
        return feed.epoch(epoch, state=state)

    def feed(  # noqa: PLR0913 - the arguments of a training loop
        self,
        split: str,
        role: str,
        *,
        batch_size: int,
        seed: int = 0,
        sanitized: bool = True,
        buffer_bytes: int = BUFFER_BYTES,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        size: tuple[int, int] | None = None,
        fit: Fit = "stretch",
        decode: DecodeFrom = "stored",
        ragged: RaggedAs | None = None,
        targets: str | None = None,
        check: bool = True,
        spill_bytes: int = SPILL_BYTES,
    ) -> Feed:
        """Prepare a role for training: `feed.epoch(k)` returns an epoch, `feed.torch()` a PyTorch dataset.

        Args:
            split: name of the split.
            role: train, valid or test.
            batch_size: images in every batch except the last.
            seed: any integer.
            sanitized: only the images that sanitizing kept.
            buffer_bytes: bytes of pixels in memory at most. A larger role is shuffled in windows; see `Feed`.
            rank: number of this rank, from 0.
            world_size: number of ranks that share an epoch. Together they return every image once.
            drop_last: leave out the last images if they do not fill a batch. All ranks then return equally many
                batches.
            size: as in `arrays`. Images are resized or decoded in threads, for the next window while one is in use.
            fit: as in `arrays`.
            decode: as in `arrays`.
            ragged: how a batch of images of several shapes is returned: "list" as a list of arrays, "pad" as one array
                of the largest height and width in the batch, with zeros to the right and below.
            targets: as in `arrays`.
            check: check each file for damage before its first images are returned; see `check`.
            spill_bytes: bytes of decoded pixels of a role larger than the buffer that are kept on local disk, so that
                later epochs do not decode them again: at most this many and at most half of the free space. 0 keeps
                none. The temporary file is in TMPDIR or else /var/tmp, and is deleted when the process ends.

        Raises:
            LakeError: as in `arrays`.
            FeedError: a number is out of range.
        """
        plan, spill = Plan(batch_size, seed, buffer_bytes, drop_last, rank, world_size), SpillFile(spill_bytes)
        way = ReadAs.checked(size, fit, decode, ragged)
        rows = self.members(split, role, sanitized=sanitized, check=check)
        where = self._locate(rows["image_id"], way, check=check)
        about: State = {
            "release": self.release,
            "split": split,
            "role": role,
            "sanitized": bool(sanitized),
            **way.state,
        }
        labels = self._labels(rows, targets, check=check)
        return Feed(
            Images(about, id_matrix(rows["image_id"]), labels, where), plan, pad=way.ragged == "pad", spill=spill
        )


def _query(image: object) -> "str | NDArray[np.uint8]":
    """Return a path as text, or pixels."""
    if not isinstance(image, np.ndarray):
        place = arguments.place("images", image)
        if not place:
            raise LakeError("the name of a picture is empty: name an image file, a folder or an archive.")
        return place
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,)) or not image.size:
        raise TypeError(
            f"images must be paths, or pixels of shape (height, width) or (height, width, 3) uint8, not {image.dtype} "
            f"of shape {image.shape}"
        )
    return image


def _check_table(table: str) -> None:
    if arguments.text("table", table) not in schemas.TABLES:
        near = difflib.get_close_matches(table, schemas.TABLES, n=1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        raise LakeError(f"there is no table '{table}'. {hint}Tables: {', '.join(schemas.TABLES)}.")
