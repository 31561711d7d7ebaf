"""imagelake history."""

import click

from pipeline.cli.options import as_json
from pipeline.cli.show import show_frame, show_json
from pipeline.flow.inspect import history


@click.command("history")
@click.argument("lake", type=click.Path())
@as_json
def command(lake: str, *, json_: bool) -> None:
    """List the releases of LAKE, oldest first: when, from which recipe, and what each build did."""
    rows = history(lake)
    show_json(rows) if json_ else show_frame(rows.drop("versions"))
