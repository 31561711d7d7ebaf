"""imagelake history."""

import click
import polars as pl

from pipeline.cli.options import as_json, the_lake
from pipeline.cli.show import show_frame, show_json
from pipeline.flow.inspect import history


@click.command("history")
@the_lake
@as_json
def command(lake: str, *, json_: bool) -> None:
    """List the releases of LAKE, oldest first: when, what pins each, from which recipe, and what its build did.

    A release is pinned that exports or scores name: vacuum does not give it up. --json names them all.
    """
    rows = history(lake)
    if json_:
        show_json(rows)
        return
    short = rows.with_columns(pinned=pl.Series([_short(names) for names in rows["pinned"]], dtype=pl.String))
    show_frame(short.select("release", "created_at", "pinned", "recipe_digest", "note"))


def _short(names: pl.Series) -> str:
    """Name the scores and count the exports."""
    scores = [name for name in names if not name.startswith("export")]
    exports = len(names) - len(scores)
    counted = [f"{exports} export{'s' if exports > 1 else ''}"] if exports else []
    return ", ".join([*scores, *counted])
