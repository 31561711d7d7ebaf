"""imagelake export."""

from pathlib import Path
from typing import Any

import click

from pipeline.arrays.exports import FORMS
from pipeline.cli.options import Words, as_json, of_release, the_lake
from pipeline.cli.say import say
from pipeline.cli.show import show_json
from pipeline.export import Exported, export, export_engine
from pipeline.recipe.parts import ROLES


@click.command("export")
@the_lake
@click.argument("split")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--to", "form", type=Words(list(FORMS)), required=True, help="Form of the files.")
@click.option("--role", "roles", type=Words(ROLES), multiple=True, help="Only this role; may be repeated.")
@click.option("--original", is_flag=True, help="All rows of the split, also those that sanitizing dropped.")
@of_release("export")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes that encode; one a core by default.")
@click.option("--pickle", is_flag=True, help="With --to notebook: write notMNIST.pickle too.")
@click.option("--no-pin", is_flag=True, help="Do not register the export: vacuum may give up its release.")
@as_json
def export_command(lake: str, split: str, directory: Path, *, form: str, json_: bool, **asked: Any) -> None:  # noqa: ANN401 - the options above
    """Write the roles of SPLIT of LAKE to the new folder DIR, for other tools to read, in the order of the split.

    \b
    npz          SPLIT.npz: ROLE_images, ROLE_labels, ROLE_ids, classes
    npy          the same as .npy files to map into memory, and an index of their rows
    parquet      raw pixels, labels and ids in plain Parquet
    imagefolder  ROLE/CLASS/IMAGE_ID.png, as torchvision's ImageFolder reads
    webdataset   ROLE-000000.tar with .png and .cls, and __classes__, which names the classes
    huggingface  Parquet with Image and ClassLabel, for datasets.load_dataset("DIR")
    notebook     notMNIST.npz: train_dataset, train_labels and so on, float32, and classes

    \b
    imagelake export data/demo main demo-npz --to npz
    """  # noqa: D301 - click wants the backspace itself, to leave the lines alone
    if asked["pickle"] and form != "notebook":
        raise click.UsageError("--pickle goes with --to notebook only.")
    done = export(
        lake,
        split,
        directory,
        form,
        roles=asked["roles"],
        sanitized=not asked["original"],
        release=asked["release"],
        engine=export_engine(asked["workers"]),
        pickle=asked["pickle"],
        pinned=not asked["no_pin"],
        on_wait=lambda: say(
            f"imagelake: {directory} is whole; waiting for whoever writes to {lake}, to pin its release (ctrl-C: not)",
            err=True,
        ),
    )
    if done.unpinned and not asked["no_pin"]:
        say(
            f"imagelake: release {done.release} is not pinned ({done.unpinned}): the export is whole, but "
            "`imagelake vacuum --keep-last` may give up the release it was made of.",
            err=True,
        )
    show_json(done._asdict()) if json_ else _show(done, form)


def _show(done: Exported, form: str) -> None:
    for role, images in done.roles.items():
        say(f"{role:>10}  {images:,} images")
    for role in done.left_out:
        say(f"{role:>10}  left out: it has no images")
    say(
        f"exported release {done.release} as {form} to {done.target}: {done.images:,} images, {done.files:,} files, "
        f"{done.size:,} bytes in {done.seconds:.1f} s ({done.images / max(done.seconds, 1e-9):,.0f} images/s)"
    )
