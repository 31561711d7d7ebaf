"""What a split with groups goes on from: its rows in the newest release, or where they are damaged, in an older one."""

from typing import Any, NamedTuple

from pipeline.errors import NoReleaseError
from pipeline.flow.state import DAMAGED
from pipeline.lake.commits import files, read_meta
from pipeline.lake.reading import scan_table
from pipeline.lake.releases import list_releases, release_versions
from pipeline.recipe import SplitPart
from pipeline.splits.groups.stay import Before


class Found(NamedTuple):
    """What a split was before.

    Attributes:
        before: its rows; None where there are none to go on from.
        told: where the newest ones are damaged, what is gone on from instead, as `split.tell` reads it.
    """

    before: Before | None
    told: dict[str, Any]


def read_before(root: str, name: str) -> Found:
    """Read a split as of the newest release: what a build that never finished has drawn is not gone on from.

    Where its files are known to be damaged, of the newest release whose files are others.

    Args:
        root: the lake's place.
        name: of the split.
    """
    try:
        newest, held = release_versions(root)
    except NoReleaseError:
        return Found(None, {})
    damaged = read_meta(root, "splits").units.get(name, {}).get(DAMAGED)
    if not damaged:
        return Found(_read(root, name, held["splits"]), {})
    for number in reversed(list_releases(root)["release"].to_list()):
        version = release_versions(root, number)[1].get("splits", 0)
        paths = {part.path for part in files(root, "splits", version) if part.partition["split_name"] == name}
        if paths and not paths & set(damaged):
            return Found(_read(root, name, version), {"restored": [newest, number]})
    return Found(None, {"restored": [newest, None]})


def _read(root: str, name: str, version: int) -> Before | None:
    unit = read_meta(root, "splits", version).units.get(name)
    if unit is None:
        return None
    rows = scan_table(root, "splits", version, lambda partition: partition["split_name"] == name)
    columns = ("image_id", "role", "dropped_by", "reason")
    return Before(SplitPart.model_validate(unit["spec"]), rows.select(columns).collect())
