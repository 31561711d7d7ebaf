"""`imagelake predict`: predict image files with a model that the lake keeps."""

import sys

import click

from pipeline.cli.options import as_json, of_release, the_lake
from pipeline.cli.show import show_frame, show_json
from pipeline.cli.terminal import print_line
from pipeline.lake_handle import Lake
from pipeline.progress import plural


@click.command("predict")
@the_lake
@click.argument("paths", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--run", metavar="MODEL@SPLIT", help="The model; the best by default.")
@click.option("--train-size", type=click.IntRange(min=1), help="The model of this number of training images.")
@of_release("take the model of")
@as_json
def predict_command(  # noqa: PLR0913 - one per option
    lake: str, paths: tuple[str, ...], run: str | None, train_size: int | None, release: int | None, *, json_: bool
) -> None:
    """Predict the classes of images that are not in LAKE. Nothing is written.

    An IMAGE is an image file, or what build reads: a folder, an archive, a table, a pattern. Its colour and size are
    converted to those that the model was trained on.

    The best model has the highest accuracy on the sanitized test role, else on valid. Without --train-size, it is the
    one that was trained on the most images. Files that are no image are listed with the reason, and the exit code is 1.

    \b
    imagelake predict data/demo drawing.png --run logistic@main
    """  # noqa: D301 - click reads the backspace: it keeps the lines as they are
    from pipeline.predictions import predict_files  # noqa: PLC0415 - slow to import

    done = predict_files(Lake(lake, release), paths, run=run, train_size=train_size)
    if json_:
        rejects = [item._asdict() for item in done.rejects]
        show_json({"run": done.run, "images": done.images.to_dicts(), "rejects": rejects})
    else:
        show_frame(done.images)
        for item in done.rejects:
            print_line(f"imagelake: {item.path}: {item.reason}: {item.detail}", err=True)
        print_line(f"predicted {plural(len(done.images), 'image')} with {done.run}")
    if done.rejects:
        sys.exit(1)
