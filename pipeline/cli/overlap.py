"""imagelake overlap."""

import click
import polars as pl

from pipeline.cli.options import as_json
from pipeline.cli.show import show_frame, show_json
from pipeline.flow.inspect import overlap

_SHOWN = 5


@click.command("overlap")
@click.argument("lake", type=click.Path())
@click.option("--split", help="Named split whose roles are compared; the sources' own splits by default.")
@as_json
def command(lake: str, split: str | None, *, json_: bool) -> None:
    """Show, rule by rule, how much of every role of LAKE occurs in another, and label conflicts."""
    found = overlap(lake, split)
    if json_:
        show_json(found._asdict())
        return
    click.echo("Images of a role (row) that occur in another role, or again in their own:")
    show_frame(found.matrix)
    click.echo("What repeats inside a role: clusters, images beyond the first of each, clusters with several labels:")
    show_frame(found.repeats)
    counts = found.conflicts.group_by("rule", maintain_order=True).len()
    listed = ", ".join(f"{count:,} by {rule}" for rule, count in counts.rows()) or "none"
    click.echo(f"Label conflicts, clusters with several labels: {listed}")
    if len(found.conflicts):
        first = found.conflicts.group_by("rule", maintain_order=True).head(_SHOWN).drop("cluster_id")
        show_frame(first.with_columns(pl.col("labels").list.join(" "), pl.col("paths").list.head(3).list.join(", ")))
        click.echo(f"Shown are {_SHOWN} a rule at most; --json lists all.")
