"""Arguments and options that commands share."""

import click


def _one_spelling(_: click.Context, __: click.Parameter, value: str) -> str:
    return value.rstrip("/") if value.startswith("s3://") else value


the_lake = click.argument("lake", type=click.Path(), callback=_one_spelling)
as_json = click.option("--json", "json_", is_flag=True, help="Print the result as JSON.")
