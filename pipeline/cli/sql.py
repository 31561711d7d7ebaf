"""imagelake sql."""

import click

from pipeline.cli.options import as_json, the_lake
from pipeline.cli.show import show_frame, show_json
from pipeline.flow.inspect import run_sql


@click.command("sql")
@the_lake
@click.argument("query")
@click.option("--at", "release", type=int, help="Release to query; the newest by default.")
@as_json
def command(lake: str, query: str, release: int | None, *, json_: bool) -> None:
    r"""Run one SELECT over all tables of LAKE, by name, with DuckDB.

    \b
    imagelake sql data/demo "select rule, label, count(*) from clusters group by all order by all"
    """
    rows = run_sql(lake, query, release)
    show_json(rows) if json_ else show_frame(rows)
