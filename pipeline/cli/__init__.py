"""The `imagelake` command: one file per subcommand, imported when it is asked for.

A command parses, calls one function of the flow, and prints. Results go to stdout, progress and errors to stderr.
"""

import sys
from importlib import import_module

import click

from pipeline.cli.say import say
from pipeline.errors import ImagelakeError

_COMMANDS = {
    "demo": ("demo", "Run the whole flow on generated glyphs; end with the truth found."),
    "build": ("build", "Build a lake from folders, archives and tables, or from a recipe."),
    "init": ("init", "Write the recipe that build would infer, for you to edit."),
    "status": ("maintenance", "Show tables, rejects, and what the next build would do and why."),
    "overlap": ("overlap", "Show what of each role occurs in another, and label conflicts."),
    "sql": ("sql", "Run one SELECT over all tables, by name."),
    "export": ("export", "Write a split to files for other tools: arrays, Parquet, folders, tar."),
    "report": ("maintenance", "Write the report: one HTML file that opens offline."),
    "verify": ("maintenance", "Hash every pixel row again and check every law at rest."),
    "history": ("maintenance", "List the releases."),
    "vacuum": ("maintenance", "Delete files that no release needs."),
    "synth": ("demo", "Draw glyph images with planted overlaps."),
}

# 128 + SIGINT, as shells count.
_INTERRUPTED = 130


class _Commands(click.Group):
    """Loads the file of the one command that runs, and none to list them: help comes at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"pipeline.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="imagelake")
@click.pass_context
def _imagelake(context: click.Context) -> None:
    """Labelled image archives in; a queryable, deduplicated, leak-free lake out.

    Start with: imagelake build FOLDER
    """
    if context.invoked_subcommand is None:
        for line in context.get_help().split("\n"):
            say(line)


def _show(error: click.ClickException) -> None:
    """Print what click prints of a usage error, line by line: its message may quote what was typed."""
    context: click.Context | None = getattr(error, "ctx", None)
    if context is not None:
        for line in (*context.get_usage().split("\n"), f"Try '{context.command_path} --help' for help.", ""):
            say(line, err=True)
    say(f"Error: {error.format_message()}", err=True)


def main() -> None:
    """Run the command; what imagelake raises on purpose becomes one line and exit code 1, ctrl-C exit code 130."""
    try:
        sys.exit(_imagelake(standalone_mode=False))
    except click.Abort:
        say("imagelake: stopped. The lake reads as of its last release; build again to go on.", err=True)
        sys.exit(_INTERRUPTED)
    except click.ClickException as error:
        _show(error)
        sys.exit(error.exit_code)
    except ImagelakeError as error:
        say(f"imagelake: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader (head, less) has seen enough.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        from pipeline.storage import silent  # noqa: PLC0415 - slow to import, and hardly ever wanted

        # Polars asks a bucket when a query runs, wherever that is.
        if (said := silent("s3://...", error)) is None:
            raise
        say(f"imagelake: {said}", err=True)
        sys.exit(1)
