"""imagelake demo.

imagelake synth.
"""

from pathlib import Path

import click

from pipeline.cli.build import show_built
from pipeline.cli.options import Renamed, as_json
from pipeline.cli.say import say
from pipeline.cli.show import show_frame, show_json
from pipeline.demo import demo, synth


@click.command("demo")
@click.argument("directory", metavar="[DIR]", type=click.Path(path_type=Path), default=Path("data/demo"))
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; one a core by default.")
@as_json
def demo_command(directory: Path, workers: int | None, *, json_: bool) -> None:
    """Run the whole flow on generated glyphs with planted overlaps, into DIR; end with the truth found.

    Without DIR the lake is data/demo.
    """
    found = demo(directory, workers=workers)
    if json_:
        show_json({"truth": found.truth, "scores": found.scores, "report": found.built.report})
        return
    show_built(found.built)
    say("")
    say("What was planted, and what the lake found:")
    show_frame(found.truth)
    say("Accuracy of logistic regression, on the test role as it was, as it is sanitized, and on what overlapped:")
    show_frame(found.scores)
    say(f"Open {found.built.report}")


@click.command("synth")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--rows", type=click.IntRange(min=1), default=20_000, show_default=True, help="Files in the train part.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same bytes.")
@click.option(
    "--to",
    "form",
    cls=Renamed,
    before=("--form",),
    type=click.Choice(["tar", "folder"]),
    default="tar",
    show_default=True,
    help="Form of the files: archives or folders.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; one a core by default.")
@as_json
def synth_command(  # noqa: PLR0913 - one argument an option
    directory: Path, rows: int, seed: int, form: str, workers: int | None, *, json_: bool
) -> None:
    """Draw glyph images with planted overlaps into DIR, and the planted truth beside them.

    The test part is sized as notMNIST's is to its train part: 18,726 to 529,114.
    """
    made = synth(directory, rows=rows, seed=seed, form=form, workers=workers)
    if json_:
        show_json(made)
        return
    for kind, count in made["planted"].items():
        say(f"{count:>10,}  {kind}")
    say(f"{made['files']:,} files: {', '.join(map(str, made['parts']))}")
    say(f"truth: {made['truth']}")
