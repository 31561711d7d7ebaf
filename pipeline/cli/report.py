"""imagelake report."""

from pathlib import Path

import click

from pipeline.cli.options import as_json, the_lake
from pipeline.cli.say import say
from pipeline.cli.show import show_json
from pipeline.flow.publish import write_report


@click.command("report")
@the_lake
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to; LAKE/report.html by default.")
@as_json
def command(lake: str, out: Path | None, *, json_: bool) -> None:
    """Write the report of LAKE's newest release: one HTML file that opens offline."""
    file = write_report(lake, out)
    show_json({"report": file}) if json_ else say(file)
