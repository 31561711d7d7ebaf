"""Options that commands share."""

import click

as_json = click.option("--json", "json_", is_flag=True, help="Print the result as JSON.")
