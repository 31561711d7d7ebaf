"""Arguments and options that commands share, so that one thing has one name in every command."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click


class Renamed(click.Option):
    """An option whose names in older versions still work. Help and errors show the current name only.

    Args:
        names: as for click: the name to show, and the name of the parameter.
        before: the names of older versions, such as "--at".
        rest: as for click.
    """

    def __init__(self, names: list[str], *, before: tuple[str, ...] = (), **rest: Any) -> None:  # noqa: ANN401 - click's options
        self._before = before
        super().__init__([*names, *before], **rest)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Describe the option by its current name."""
        with self._current_names():
            return super().get_help_record(ctx)

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Name the option in an error by its current name."""
        with self._current_names():
            return super().get_error_hint(ctx)

    @contextmanager
    def _current_names(self) -> Iterator[None]:
        names = self.opts
        self.opts = [name for name in names if name not in self._before]
        try:
            yield
        finally:
            self.opts = names


class Choice(click.Choice[str]):
    """A choice of words. If the option is missing, they are listed in one line; click uses one line per word."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002 - click's signature
        """List the words."""
        return f"Choose from {', '.join(map(str, self.choices))}."


def _place(_: click.Context, __: click.Parameter, value: str) -> str:
    if not value:
        raise click.BadParameter("it is empty. Name the folder of a lake, or s3://bucket/prefix.")
    return f"s3://{value.removeprefix('s3://').rstrip('/')}" if value.startswith("s3://") else value


the_lake = click.argument("lake", type=click.Path(), callback=_place)
workers_option = click.option(
    "--workers", type=click.IntRange(min=1), help="Number of worker processes; one per core by default."
)
as_json = click.option("--json", "json_", is_flag=True, help="Print the result as JSON.")


def of_release(does: str, **rest: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - click's options
    """Make the option --release.

    Args:
        does: verb for the help text, such as "query".
        rest: as for `Renamed`.
    """
    return click.option(
        "--release",
        cls=Renamed,
        type=click.IntRange(min=1),
        metavar="NUMBER",
        help=f"Release to {does}; the newest by default.",
        **rest,
    )
