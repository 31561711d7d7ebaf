"""imagelake sql."""

import re

import click

from pipeline.cli.options import as_json, of_release, the_lake
from pipeline.cli.say import say
from pipeline.cli.show import ROWS, show_csv, show_frame, show_json_rows
from pipeline.lake_handle import Lake
from pipeline.sql import all_rows, first_rows, write_rows

# How a query would make bytes, of which no id here is equal to any.
_MAKES_BYTES = re.compile(r"\b(unhex|from_hex)\s*\(|\b(blob|bytea|binary|varbinary)\b", re.IGNORECASE)


@click.command("sql")
@the_lake
@click.argument("query")
@click.option("--csv", is_flag=True, help="Print all rows as CSV.")
@click.option("--parquet", metavar="FILE", type=click.Path(), help="Write all rows to a Parquet file.")
@of_release("query", before=("--at",))
@as_json
def sql_command(  # noqa: PLR0913 - its options
    lake: str, query: str, release: int | None, parquet: str | None, *, csv: bool, json_: bool
) -> None:
    """Run one SELECT over all tables of LAKE, by name, with DuckDB.

    "show tables" lists the tables, "describe images" the columns of one. Ids and hashes are text of 32 hexadecimal
    digits here; in Python's `lake.sql` they are bytes. Of other bytes, such as pixels, only the number is shown;
    --parquet keeps them. The table ends after 1,000 rows, or 100 where it is too wide for the terminal; --csv, --json
    and --parquet give all rows.

    \b
    imagelake sql data/demo "select rule, label, count(*) from clusters group by all order by all"
    imagelake sql data/demo "select * from images where image_id like '931b%'"
    imagelake sql data/demo "select * from splits where not kept" --csv > dropped.csv
    """  # noqa: D301 - click wants the backspace itself, to leave the lines alone
    if csv + json_ + (parquet is not None) > 1:
        raise click.UsageError("--csv, --json and --parquet are three forms of the same rows: choose one.")
    opened = Lake(lake, release)
    if parquet is not None:
        done = write_rows(opened, query, parquet)
        say(f"rows: {done.rows:,}, columns: {done.columns:,}, written to {done.file} ({done.size:,} bytes)")
    elif csv:
        show_csv(all_rows(opened, query))
    elif json_:
        show_json_rows(all_rows(opened, query))
    else:
        found = first_rows(opened, query, most=ROWS)
        show_frame(found.first, total=found.total, rest="--csv, --json or --parquet FILE give all")
        if not found.total and _MAKES_BYTES.search(query):
            say("Ids are text here, and equal to no bytes: compare them with their 32 hexadecimal digits.", err=True)
