"""imagelake demo."""

from pathlib import Path

import click

from pipeline.cli.build import show_built
from pipeline.cli.options import as_json
from pipeline.cli.say import say
from pipeline.cli.show import show_frame, show_json
from pipeline.flow.demo import demo


@click.command("demo")
@click.argument("directory", metavar="[DIR]", type=click.Path(path_type=Path), default=Path("data/demo"))
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; one a core by default.")
@as_json
def command(directory: Path, workers: int | None, *, json_: bool) -> None:
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
