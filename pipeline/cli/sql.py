"""`imagelake sql`: run a query over the tables of a lake."""

import re

import click

from pipeline.cli.options import as_json, of_release, the_lake
from pipeline.cli.show import ROWS, show_csv, show_frame, show_json_rows
from pipeline.cli.terminal import print_line
from pipeline.lake_handle import Lake
from pipeline.sql import all_rows, first_rows, write_rows

# Functions and types that make bytes. Ids are text here, so a comparison with bytes finds nothing.
_MAKES_BYTES = re.compile(r"\b(unhex|from_hex)\s*\(|\b(blob|bytea|binary|varbinary)\b", re.IGNORECASE)


@click.command("sql")
@the_lake
@click.argument("query")
@click.option("--csv", is_flag=True, help="Print all rows as CSV.")
@click.option("--parquet", metavar="FILE", type=click.Path(), help="Write all rows to a Parquet file.")
@of_release("query", before=("--at",))
@as_json
def sql_command(  # noqa: PLR0913 - one per option
    lake: str, query: str, release: int | None, parquet: str | None, *, csv: bool, json_: bool
) -> None:
    """Run one SELECT over the tables of LAKE with DuckDB.

    "show tables" lists the tables, "describe images" the columns of a table. Ids and hashes are text of 32 hexadecimal
    digits; in Python's `lake.sql` they are bytes. Of other bytes, such as pixels, only the length is shown; --parquet
    writes them. At most 1,000 rows are shown, or 100 if the table is too wide for the terminal; --csv, --json and
    --parquet give all rows.

    \b
    imagelake sql data/demo "select rule, label, count(*) from clusters group by all order by all"
    imagelake sql data/demo "select * from images where image_id like '931b%'"
    imagelake sql data/demo "select * from splits where not kept" --csv > dropped.csv
    """  # noqa: D301 - click reads the backspace: it keeps the lines as they are
    if csv + json_ + (parquet is not None) > 1:
        raise click.UsageError("--csv, --json and --parquet cannot be combined: choose one.")
    opened = Lake(lake, release)
    if parquet is not None:
        done = write_rows(opened, query, parquet)
        print_line(f"rows: {done.rows:,}, columns: {done.columns:,}, written to {done.file} ({done.size:,} bytes)")
    elif csv:
        show_csv(all_rows(opened, query))
    elif json_:
        show_json_rows(all_rows(opened, query))
    else:
        found = first_rows(opened, query, most=ROWS)
        show_frame(found.first, total=found.total, rest="--csv, --json or --parquet FILE give all")
        if not found.total and _MAKES_BYTES.search(query):
            print_line(
                "Ids are text here and never equal bytes: compare them with text of 32 hexadecimal digits.", err=True
            )
