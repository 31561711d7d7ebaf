"""The pictures a report shows: which are wanted, what is known of them, and their PNG."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import polars as pl

from pipeline.report.clusters import ClusterChoice
from pipeline.report.pictures import contact_sheet, picture


@dataclass
class Album:
    """Pictures by image_id. Ids go in first, so that one pass over the pixels finds them all.

    Attributes:
        wanted: image_id of every picture to read.
        fates: (split_name, image_id) -> kept, dropped_by, dropped_for.
        rows: image_id -> its row, once filled.
    """

    wanted: pl.Series
    fates: dict[tuple[str, bytes], dict[str, Any]]
    rows: dict[bytes, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        splits: pl.LazyFrame,
        samples: pl.Series,
        crossing: list[ClusterChoice],
        conflicts: ClusterChoice,
        misses: tuple[Sequence[bytes], Sequence[bytes]] = ((), ()),
    ) -> Self:
        """Collect what is wanted: samples, images of chosen clusters, and what those were dropped for.

        Of misses, first the test images, then the training images beside them.
        """
        missed, nearest = misses
        shown = pl.Series("image_id", [*(one for choice in crossing for one in choice.ids()), *missed], dtype=pl.Binary)
        fates = splits.join(pl.LazyFrame([shown.unique()]), on="image_id", how="semi").collect()
        beside = pl.Series([*conflicts.ids(), *nearest], dtype=pl.Binary)
        wanted = pl.concat([samples.cast(pl.Binary), shown, beside, fates["dropped_for"].cast(pl.Binary).drop_nulls()])
        return cls(
            wanted.unique().alias("image_id"),
            {(row["split_name"], row["image_id"]): row for row in fates.iter_rows(named=True)},
        )

    def fill(self, pictures: pl.DataFrame) -> None:
        """Put in the rows that `read_pictures` returned."""
        self.rows = {row["image_id"]: row for row in pictures.iter_rows(named=True)}

    def sheet(self, ids: list[bytes]) -> dict[str, Any] | None:
        """Lay pictures side by side in one PNG; None without pictures."""
        return contact_sheet([self.rows[one] for one in ids]) if ids else None

    def entries(self, choice: ClusterChoice, rule: str) -> list[dict[str, Any]]:
        """Show a choice's clusters of one rule.

        Args:
            choice: the chosen clusters.
            rule: the rule.

        Returns:
            One dict, or none where the rule has no such cluster: rule, split_name, total, shown; a cluster
            shown has cluster_id, images, sides and more_sides; a side has side, images and pictures.
        """
        if rule not in choice.totals:
            return []
        shown = [
            {**cluster, "sides": [self._side(side, choice.split_name) for side in cluster["sides"]]}
            for cluster in choice.shown[rule]
        ]
        return [{"rule": rule, "split_name": choice.split_name, "total": choice.totals[rule], "shown": shown}]

    def picture(self, image_id: bytes | None, split_name: str | None) -> dict[str, Any] | None:
        """Show one picture, with what sanitizing did to it in a split; None where the lake does not hold it."""
        return None if image_id not in self.rows else self._picture(image_id, split_name)

    def _side(self, side: dict[str, Any], split_name: str | None) -> dict[str, Any]:
        pictures = [self._picture(one, split_name) for one in side["ids"] if one in self.rows]
        return {"side": side["side"], "images": side["images"], "pictures": pictures}

    def _picture(self, image_id: bytes, split_name: str | None) -> dict[str, Any]:
        row = self.rows[image_id]
        fate = self.fates.get((split_name, image_id), {}) if split_name is not None else {}
        reason = self.rows.get(fate.get("dropped_for") or b"", {})
        return {
            "image_id": image_id.hex(),
            "path": row["path"],
            "label": row["label"],
            "source": f"{row['dataset']}/{row['split']}",
            "kept": fate.get("kept"),
            "dropped_by": fate.get("dropped_by"),
            "dropped_for": reason.get("path"),
            **picture(row),
        }
