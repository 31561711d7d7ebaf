"""The `imagelake` command. Each subcommand is in a module that is imported only when the subcommand runs.

A subcommand parses its arguments, calls one function, and prints the result. Results go to stdout, progress and errors
to stderr. Modules share `options` (arguments), `terminal` (lines) and `show` (tables, JSON, CSV).
"""

import logging
import os
import sys
from importlib import import_module

import click

from pipeline.cli.failures import end_on_signals, failure
from pipeline.cli.streams import incomplete_output, open_streams
from pipeline.cli.terminal import print_line
from pipeline.limits import check_limits

# By name: the module, and the summary for `imagelake --help`.
_COMMANDS = {
    "demo": ("demo", "Build a lake of generated glyphs and compare it with the known truth."),
    "build": ("build", "Build a lake from folders, archives and tables, or from a recipe."),
    "init": ("build", "Write the recipe that build would infer, for you to edit."),
    "status": ("maintenance", "Show tables, rejects, and what the next build would do and why."),
    "overlap": ("overlap", "Show duplicates between and within roles, and label conflicts."),
    "find": ("find", "Find the duplicates of a picture, by every rule of the lake."),
    "why": ("why", "Explain one image: clusters, pairs, roles, why it was dropped, predictions."),
    "verdicts": ("verdicts", "Decide what is the same, wrong or to be dropped; the next build honours it."),
    "issues": ("issues", "List images that a person should look at: dark, blurry, mislabelled ones."),
    "review": ("review", "Decide about pairs, clusters and images in a local web app."),
    "show": ("images", "Show single images with their labels, or write them as PNG files."),
    "diff": ("diff", "Count what changed between two releases, or list it."),
    "check": ("check", "Check a release against the [[check]] of its recipe, as a gate for CI."),
    "sql": ("sql", "Run one SELECT over all tables, by name."),
    "predict": ("predict", "Predict image files with a model of the lake."),
    "export": ("export", "Write a split to files for other tools: arrays, Parquet, folders, tar."),
    "report": ("maintenance", "Write the report: one HTML file that opens offline."),
    "verify": ("maintenance", "Check all files and tables of a lake, and hash all pixels again."),
    "history": ("maintenance", "List the releases."),
    "vacuum": ("maintenance", "Delete files that no release needs."),
    "synth": ("demo", "Draw glyph images with planted overlaps."),
}


class _Commands(click.Group):
    """Import only the module of the command that runs, and none for the list of commands: `--help` is fast."""

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
    """Build a queryable, deduplicated, leak-free lake from labelled images.

    Start with: imagelake build FOLDER
    """
    if context.invoked_subcommand is None:
        for line in context.get_help().split("\n"):
            print_line(line)


def _print_usage_error(error: click.ClickException) -> None:
    """Print a usage error as click does, but with control characters escaped: its message may quote arguments."""
    context: click.Context | None = getattr(error, "ctx", None)
    if context is not None:
        for line in (*context.get_usage().split("\n"), f"Try '{context.command_path} --help' for help.", ""):
            print_line(line, err=True)
    print_line(f"Error: {error.format_message()}", err=True)


def main() -> None:
    """Run the command. An error of imagelake is printed in one line with exit code 1. Ctrl-C gives exit code 130.

    Output that cannot be written does not stop a command. The exit code is then 1, unless a reader has closed a pipe.
    """
    # It warns in two lines if its folder of settings cannot be written to, which changes nothing here.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Jupyter names a backend here that the environment of this command may not have. The charts need none.
    os.environ["MPLBACKEND"] = "agg"
    open_streams()
    code = _run()
    if (error := incomplete_output()) is not None:
        done = " Everything else is done." if not code else ""
        print_line(f"imagelake: stdout cannot be written to ({error.strerror}): output is lost.{done}", err=True)
        code = code or 1
    sys.exit(code)


def _run() -> int:
    """Run the command, print its error, and return the exit code."""
    try:
        end_on_signals()
        check_limits()
        # Of `--help` click returns the exit code.
        return int(_imagelake(standalone_mode=False) or 0)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except click.ClickException as error:
        _print_usage_error(error)
        return error.exit_code
    except BaseException as error:  # the errors of Rust libraries are no Exceptions
        found = failure(error)
        if found is None:
            raise
        print_line(found.line, err=True)
        return found.code
