"""Run the command line in the test process."""

from collections.abc import Callable

from click.testing import CliRunner, Result

from pipeline import cli

Run = Callable[..., Result]


def run_command(*arguments: object) -> Result:
    """Run `imagelake` with arguments; raises exceptions that are bugs."""
    result = CliRunner().invoke(cli._imagelake, [str(argument) for argument in arguments])  # noqa: SLF001 - the group itself
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
