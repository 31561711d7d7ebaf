"""The `imagelake` command: one file per subcommand, imported when it is asked for.

A command parses, calls one function of the flow, and prints. Results go to stdout, progress and errors to stderr.
"""

import sys
from importlib import import_module

import click

from pipeline.errors import ImagelakeError

_COMMANDS = ("demo", "build", "synth", "status", "overlap", "sql", "report", "verify", "history", "vacuum")


class _Commands(click.Group):
    """Loads the file of the one command that runs, so that `--help` and a small command start fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"pipeline.cli.{cmd_name}").command
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="imagelake")
def _imagelake() -> None:
    """Labelled image archives in; a queryable, deduplicated, leak-free lake out."""


def main() -> None:
    """Run the command; what imagelake raises on purpose becomes one line and exit code 1."""
    try:
        _imagelake()
    except ImagelakeError as error:
        click.echo(f"imagelake: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader (head, less) has seen enough.
        sys.stderr.close()
        sys.exit(0)
