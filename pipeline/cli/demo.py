"""`imagelake demo` and `imagelake synth`: generated glyphs with planted overlaps."""

import sys
from pathlib import Path

import click

from pipeline.cli.build import print_errors, show_built
from pipeline.cli.options import Renamed, as_json, workers_option
from pipeline.cli.show import show_frame, show_json
from pipeline.cli.terminal import print_line
from pipeline.demo import demo, synth


@click.command("demo")
@click.argument("directory", metavar="[DIR]", type=click.Path(path_type=Path), default=Path("data/demo"))
@workers_option
@as_json
def demo_command(directory: Path, workers: int | None, *, json_: bool) -> None:
    """Build a lake in DIR from generated glyphs with planted overlaps, and compare the result with the truth.

    The default of DIR is data/demo.
    """
    result = demo(directory, workers=workers)
    if json_:
        show_json({"truth": result.truth, "scores": result.scores, "report": result.built.report})
        sys.exit(print_errors(result.built.report_error))
    show_built(result.built)
    print_line("")
    print_line("Planted overlaps, and the overlaps that the lake found:")
    show_frame(result.truth)
    print_line("Accuracy of logistic regression on the original test role, on its sanitized part, and on the overlap:")
    show_frame(result.scores)
    if result.built.report:
        print_line(f"Open {result.built.report}")
    sys.exit(print_errors(result.built.report_error))


@click.command("synth")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--rows", type=click.IntRange(min=1), default=20_000, show_default=True, help="Number of files in the train part."
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same bytes.")
@click.option(
    "--to",
    "form",
    cls=Renamed,
    before=("--form",),
    type=click.Choice(["tar", "folder"]),
    default="tar",
    show_default=True,
    help="Format of the files: archives or folders.",
)
@workers_option
@as_json
def synth_command(  # noqa: PLR0913 - one per option
    directory: Path, rows: int, seed: int, form: str, workers: int | None, *, json_: bool
) -> None:
    """Draw glyph images with planted overlaps into DIR, and write the truth next to them.

    The sizes of the test part and the train part have the ratio of notMNIST: 18,726 to 529,114.
    """
    drawn = synth(directory, rows=rows, seed=seed, form=form, workers=workers)
    if json_:
        show_json(drawn)
        return
    for kind, count in drawn["planted"].items():
        print_line(f"{count:>10,}  {kind}")
    print_line(f"{drawn['files']:,} files: {', '.join(map(str, drawn['parts']))}")
    print_line(f"truth: {drawn['truth']}")
