"""`imagelake export`: write a split to files for other tools."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import Choice, as_json, of_release, the_lake, workers_option
from pipeline.cli.show import show_json
from pipeline.cli.terminal import print_line
from pipeline.export import FORM_NAMES, PREDICTIONS, Exported, export, export_engine
from pipeline.progress import plural
from pipeline.recipe.parts import ROLES


@click.command("export")
@the_lake
@click.argument("split")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--to", "form", type=Choice(list(FORM_NAMES)), required=True, help="Format of the files.")
@click.option("--role", "roles", type=Choice(ROLES), multiple=True, help="Only this role; may be repeated.")
@click.option("--original", is_flag=True, help="Also export the rows that sanitizing dropped.")
@of_release("export")
@workers_option
@click.option("--pickle", is_flag=True, help="With --to notebook: also write notMNIST.pickle.")
@click.option(
    "--link",
    is_flag=True,
    help="With --to imagefolder: hard links to source files on the same disk with the same bytes.",
)
@click.option("--run", metavar="MODEL@SPLIT", help="With --to predictions: the model; the best by default.")
@click.option("--train-size", type=click.IntRange(min=1), help="With --to predictions: the model of this train size.")
@click.option("--kaggle", is_flag=True, help="With --to predictions: write ImageId,Label, counted from 1.")
@click.option("--no-pin", is_flag=True, help="Do not pin the release: vacuum may then delete it.")
@as_json
def export_command(lake: str, split: str, directory: Path, *, form: str, json_: bool, **options: Any) -> None:  # noqa: ANN401 - the options above
    """Write the roles of SPLIT of LAKE to the new folder DIR, in the order of the split.

    \b
    npz          SPLIT.npz: ROLE_images, ROLE_labels, ROLE_ids, classes
    npy          the same as .npy files to memory-map, and an index of their rows
    parquet      raw pixels, labels and ids in plain Parquet
    imagefolder  ROLE/CLASS/NAME, as torchvision's ImageFolder reads
    webdataset   ROLE-000000.tar with images and .cls, and __classes__, which names the classes
    huggingface  Parquet with Image and ClassLabel, for datasets.load_dataset("DIR")
    notebook     notMNIST.npz: train_dataset, train_labels and so on, float32, and classes
    predictions  predictions.csv: path,predicted,probability,run of the test role, in the order of the source

    imagefolder, webdataset and huggingface have the original files of a lake that keeps them, under their names, else
    IMAGE_ID.png; and manifest.csv, which lists all images.

    \b
    imagelake export data/demo main demo-npz --to npz
    """  # noqa: D301 - click reads the backspace: it keeps the lines as they are
    if options["pickle"] and form != "notebook":
        raise click.UsageError("--pickle needs --to notebook.")
    if options["link"] and form != "imagefolder":
        raise click.UsageError("--link needs --to imagefolder.")
    of_model = {"run": options["run"], "train_size": options["train_size"], "kaggle": options["kaggle"]}
    if form != PREDICTIONS and any(of_model.values()):
        raise click.UsageError("--run, --train-size and --kaggle need --to predictions.")
    done = export(
        lake,
        split,
        directory,
        form,
        roles=options["roles"],
        sanitized=not options["original"],
        release=options["release"],
        engine=export_engine(options["workers"]),
        pickle=options["pickle"],
        link=options["link"],
        **of_model,
        pinned=not options["no_pin"],
        on_wait=lambda: print_line(
            f"imagelake: {directory} is complete; waiting for another writer of {lake} to pin the release (Ctrl-C: do "
            "not pin)",
            err=True,
        ),
    )
    if done.unpinned and not options["no_pin"]:
        print_line(
            f"imagelake: release {done.release} is not pinned ({done.unpinned}): the export is complete, but "
            "`imagelake vacuum --keep-last` may delete the release that it was made from.",
            err=True,
        )
    show_json(done._asdict()) if json_ else _show(done, form)


def _show(done: Exported, form: str) -> None:
    for role, images in done.roles.items():
        print_line(f"{role:>10}  {plural(images, 'image')}")
    for role in done.left_out:
        print_line(f"{role:>10}  left out: it has no images")
    if done.linked:
        print_line(f"{'linked':>10}  {done.linked:,} files are hard links to their sources: do not edit them in place")
    files = plural(done.files, "file")
    print_line(
        f"exported release {done.release} as {form} to {done.target}: {plural(done.images, 'image')}, {files}, "
        f"{done.size:,} bytes in {done.seconds:.1f} s ({done.images / max(done.seconds, 1e-9):,.0f} images/s)"
    )
