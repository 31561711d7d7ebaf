"""Build the recipes of the classic notebooks, and print the published figures beside ours.

    .venv/bin/python benchmarks/published.py --quick                     # short fits, minutes
    .venv/bin/python benchmarks/published.py --only NAME                 # the notebook's settings
    .venv/bin/python benchmarks/published.py --only NAME --lake LAKE     # a lake that the recipe NAME built
    .venv/bin/python benchmarks/published.py --archives DIR              # the real notMNIST archives

For each figure it prints the settings of both, their standard errors, and why they differ. VALUE ± ERROR of N: the
error is the standard error of a share of N images, with our measured spread over other samples or orders of the
training images where `claims.py` has one; of a mean of folds, it is that of their spread. "In errors" is the
difference in standard errors of both; more than 3 is unlikely to be chance.

MNIST and the digits of the digit-recognizer competition are the real ones of `../shared/data`. Without --archives, the
recipes of notMNIST run on real letters: 3,493 images of the large archive as train and valid (1,000), and the small
archive as test. --glyphs runs them on generated letters of full size instead: for their times, because accuracies on
other letters say nothing about notMNIST. With the notebook's settings, digit_recognizer takes hours.
"""

import argparse
import json
import math
import statistics
import sys
import textwrap
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from claims import CLAIMS, Claim, Figure, Rows
from digit_csv import write_digits
from glyph_data import glyphs

from pipeline.builder.build import build
from pipeline.errors import BaselineError, ImagelakeError
from pipeline.lake_handle import Lake
from pipeline.recipe import parse_recipe

RECIPES = Path(__file__).parents[1] / "data"
REAL = Path(__file__).parents[1].parent / "shared" / "data"
ARCHIVES = ("notMNIST_large.tar.gz", "notMNIST_small.tar.gz")
_FULL = 529_114

Values = dict[str, Any]


class Data(NamedTuple):
    """Images to run a recipe on.

    Attributes:
        title: words for them.
        adapt_recipe: changes a recipe so that it reads them; its second argument is a folder for files that it makes.
        note: how they differ from the notebook's; empty if they are the same.
    """

    title: str
    adapt_recipe: Callable[[Values, Path], Values]
    note: str = ""


class Ours(NamedTuple):
    """A figure of ours: the value, the training images, and the images that it is a share of, if they are counted."""

    value: float
    rows: int
    images: int | None


def letters(values: Values, _work: Path) -> Values:
    """Run on real letters: the sample of the large archive as train, the small archive as test."""
    files = ("notMNIST_large_sample.tar.gz", "notMNIST_small.tar.gz")
    for source, file, least in zip(values["source"], files, (300, 1_800), strict=True):
        source |= {"uri": str(REAL / file), "min_per_class": least}
        del source["bytes"]  # the small archive was packed again
    split = values["split"][0]
    split["train"] = {"from": "train"}
    split["valid"]["size"] = 1_000
    for baseline in values["baseline"]:
        if "train_sizes" in baseline:
            baseline["train_sizes"] = [50, 100, 1000, "all"]
    return values


def full_glyphs(values: Values, work: Path) -> Values:
    """Run on generated glyphs of the size of the real archives."""
    drawn = glyphs(work, _FULL)
    for source, file in zip(values["source"], (drawn.train, drawn.test), strict=True):
        source["uri"] = str(file)
        del source["bytes"]
    return values


def archives(folder: Path) -> Data:
    """Run on the real archives of a folder."""

    def adapt(values: Values, _work: Path) -> Values:
        for source, file in zip(values["source"], ARCHIVES, strict=True):
            source["uri"] = str(folder.resolve() / file)
        return values

    return Data("the real archives", adapt)


def mnist(values: Values, _work: Path) -> Values:
    """Run on the real MNIST files."""
    values["source"][0]["uri"] = str(REAL / "mnist")
    return values


def competition(values: Values, work: Path) -> Values:
    """Run on the real digits in the competition's form."""
    folder = write_digits(work / "digit_recognizer_csv", REAL / "mnist")
    for source, file in zip(values["source"], ("train.csv", "test.csv"), strict=True):
        source["uri"] = str(folder / file)
    return values


LETTERS = Data(
    "real letters", letters, "Ours are a small sample of the large archive, so the largest fit has 1 % of the rows."
)
GLYPHS = Data("generated glyphs", full_glyphs, "Ours are other letters, so the accuracies cannot be compared.")
DIGITS = {
    "mnist_five_or_not": Data("MNIST", mnist),
    "digit_recognizer": Data("MNIST's digits in the competition's form", competition),
    "mnist": Data("MNIST", mnist),
}


def standard_error(value: float | None, images: int | None, spread: float = 0.0) -> float | None:
    """Estimate the standard error of a share of images: for other images, and for other training images.

    Returns:
        None if the value or the number of images is not known.
    """
    if value is None or images is None:
        return None
    return math.hypot(math.sqrt(value * (1 - value) / images), spread)


def run_of(lake: Lake, claim: Claim) -> tuple[str | None, Values]:
    """Find the run of a claim: its id and its settings; None and no settings if the lake has no such run.

    Raises:
        BaselineError: the lake has several such runs, and nothing says which one to compare.
    """
    runs = lake.scan("scores").filter(model=claim.model, split_name=claim.split).select("run_id", "settings")
    found = runs.unique().collect().rows()
    if len(found) > 1:
        raise BaselineError(
            f"{lake.root} has {len(found)} models {claim.model}@{claim.split}. Build the recipe into a lake of its own."
        )
    return (found[0][0], json.loads(found[0][1])) if found else (None, {})


def measured(lake: Lake, claim: Claim, run_id: str) -> list[Ours]:
    """Read our figures of a claim from a run, by train size; of folds, by fold within a size."""
    scores = lake.scan("scores").filter(
        pl.col("rule").is_null(),
        pl.col("label").is_null() if claim.label is None else pl.col("label") == claim.label,
        pl.col("seed") == pl.col("seed").min().over("run_id"),
        run_id=run_id,
        role=claim.role,
    )
    if claim.eval_on == "rows of train":
        sizes = scores.select(pl.col("train_size").unique().sort()).collect().to_series()
        return [on_rows_of_train(lake, f"{claim.model}@{claim.split}", claim.split, size) for size in sizes]
    rows = scores.filter(eval_on=claim.eval_on, metric=claim.metric).sort("train_size", "point").collect()
    counts = scores.filter(eval_on=claim.eval_on, metric="images").select("train_size", "value").collect()
    images = {size: int(count) for size, count in counts.rows()}
    if claim.eval_on == "cross-validated":
        images = _crossed_images(scores.filter(eval_on=claim.eval_on).collect(), claim)
    return [Ours(value, size, images.get(size)) for value, size in rows.select("value", "train_size").rows()]


def _crossed_images(scores: pl.DataFrame, claim: Claim) -> dict[int, int]:
    """Count by train size the images that a cross-validated figure is a share of."""
    found = {}
    for size, part in scores.group_by("train_size"):
        named = dict(
            part.filter(pl.col("metric").is_in(["precision", "recall", "support"])).select("metric", "value").rows()
        )
        if claim.metric == "fold_accuracy":
            found[size[0]] = size[0] // part.filter(metric="fold_accuracy").height
        elif claim.metric == "accuracy":
            found[size[0]] = size[0]
        elif claim.metric == "recall":
            found[size[0]] = round(named["support"])
        elif claim.metric == "precision":
            found[size[0]] = round(named["recall"] * named["support"] / named["precision"])
    return found


def on_rows_of_train(lake: Lake, run: str, split: str, size: int) -> Ours:
    """Score a model on the rows of train that have the positions of valid's kept rows, as a notebook did."""
    kept = lake.members(split, "valid", sanitized=False)["kept"].to_numpy()
    pixels, labels = lake.arrays(split, "train")
    positions = np.flatnonzero(kept)
    positions = positions[positions < len(labels)]
    names = pl.Series(lake.class_names(split), dtype=pl.String).gather(labels[positions])
    predicted = lake.predict(pixels[positions], run=run, train_size=size)["predicted"]
    return Ours((predicted == names).to_numpy().mean(), size, len(positions))


def compare(name: str, lake: Lake, data: Data, seconds: float | None = None) -> Iterator[dict[str, Any]]:
    """Put every published figure of a recipe beside ours.

    Args:
        name: of the recipe.
        lake: what it built.
        data: what it was built on.
        seconds: that the build took.

    Yields:
        One dict a claim, ready for JSON. `figures` has published and our value, with rows, standard errors, and
        `z_score`, their difference in standard errors.
    """
    for claim in CLAIMS[name]:
        run_id, settings = run_of(lake, claim)
        ours = measured(lake, claim, run_id) if run_id else []
        lines = [_line(figure, matching(figure, ours)) for figure in claim.figures]
        if claim.metric == "fold_accuracy":
            lines.append(mean_of_folds(claim, ours))
        yield {
            "recipe": name,
            "data": data.title,
            "build_seconds": seconds,
            "model": claim.model,
            "what": claim.what,
            "figures": [line for line in lines if line["published"] is not None or line["ours"] is not None],
            "settings": {"published": claim.settings, "ours": {key: settings.get(key) for key in claim.settings}},
            "assumed": list(claim.assumed),
            "why": " ".join(filter(None, (_other_settings(claim, settings), claim.why, data.note))),
        }


def _other_settings(claim: Claim, ours: Values) -> str:
    if not ours:
        return "The lake has no such run."
    other = [key for key, value in claim.settings.items() if ours.get(key) != value]
    return f"Ours has another {', '.join(other)}." if other else ""


def matching(figure: Figure, ours: list[Ours]) -> Ours | None:
    """Find our figure by train size, and by fold if the figure is of one."""
    of_size = _of_size(ours, figure.our_rows)
    at = 0 if figure.point is None else figure.point - 1
    return of_size[at] if at < len(of_size) else None


def _of_size(ours: list[Ours], size: Rows) -> list[Ours]:
    wanted = max((one.rows for one in ours), default=0) if size == "all" else size
    return [one for one in ours if one.rows == wanted]


def _line(figure: Figure, ours: Ours | None) -> dict[str, Any]:
    value, rows, images = ours or (None, None, None)
    published_error = standard_error(figure.value, figure.images, figure.spread)
    our_error = standard_error(value, images, figure.spread)
    return {
        "at": None if figure.point is None else f"fold {figure.point}",
        "published_rows": figure.rows,
        "our_rows": rows,
        "published": figure.value,
        "published_images": figure.images,
        "published_error": published_error,
        "ours": value,
        "our_images": images,
        "our_error": our_error,
    } | _difference(figure.value, published_error, value, our_error)


def mean_of_folds(claim: Claim, ours: list[Ours]) -> dict[str, Any]:
    """Compare the means of the folds, whose standard errors follow from the spread of the folds."""
    published = [figure.value for figure in claim.figures if figure.value is not None]
    largest = _of_size(ours, "all")
    values = [one.value for one in largest]
    both = [
        (statistics.mean(one), statistics.stdev(one) / math.sqrt(len(one))) if one else (None, None)
        for one in (published, values)
    ]
    (theirs, error), (mine, own) = both
    return {
        "at": "mean",
        "published_rows": claim.figures[0].rows,
        "our_rows": largest[0].rows if largest else None,
        "published": theirs,
        "published_images": None,
        "published_error": error,
        "ours": mine,
        "our_images": None,
        "our_error": own,
    } | _difference(theirs, error, mine, own)


def _difference(published: float | None, error: float | None, ours: float | None, own: float | None) -> dict[str, Any]:
    difference = None if published is None or ours is None else ours - published
    both = None if error is None or own is None else math.hypot(error, own)
    return {"difference": difference, "z_score": None if difference is None or not both else difference / both}


def text_of(rows: Sequence[dict[str, Any]]) -> str:
    """Lay out claims of one model, with the same settings and reason, for a terminal."""
    lines = []
    for row in rows:
        columns = ("training rows", "published", "ours", "difference", "in errors")
        lines += [f"{row['model']}: {row['what']}", _columns(columns)]
        for one in row["figures"]:
            z_score = "-" if one["z_score"] is None else f"{one['z_score']:+.1f}"
            difference = "-" if one["difference"] is None else f"{round(one['difference'], 4) + 0:+.4f}"
            published = _value(one["published"], one["published_error"], one["published_images"])
            ours = _value(one["ours"], one["our_error"], one["our_images"])
            lines.append(_columns((_rows(one), published, ours, difference, z_score)))
    shared = rows[0]
    for key, words in (("published", "published"), ("ours", "ours")):
        settings = [f"{name} {_setting(value)}" for name, value in shared["settings"][key].items()]
        lines.append(f"  {words + ':':12}{', '.join(settings)}")
    if shared["assumed"]:
        lines.append(f"  {'assumed:':12}{', '.join(shared['assumed'])}")
    why = textwrap.fill(shared["why"], 110, initial_indent=f"  {'why:':12}", subsequent_indent=" " * 14)
    return "\n".join([*lines, why, ""])


def _columns(cells: Sequence[str]) -> str:
    widths = (20, 28, 28, 12, 11)
    return "  " + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _rows(one: dict[str, Any]) -> str:
    published, ours = one["published_rows"], one["our_rows"]
    rows = f"{published:,}" if ours in (None, published) else f"{published:,} / {ours:,}"
    return f"{one['at']} of {rows}" if one["at"] else rows


def _value(value: float | None, error: float | None, images: int | None) -> str:
    if value is None:
        return "-"
    counted = "" if images is None else f" of {images:,}"
    return f"{value:.4f}{counted}" if error is None else f"{value:.4f} ± {error:.4f}{counted}"


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return f"{value[0]:g} to {value[-1]:g} ({len(value)} values)"
    return "not set" if value is None else str(value)


def run(name: str, data: Data, work: Path, *, quick: bool) -> Iterator[dict[str, Any]]:
    """Build a recipe on data, and compare its figures."""
    file = RECIPES / "quick" / f"{name}.toml" if quick else RECIPES / f"{name}.toml"
    values = data.adapt_recipe(tomllib.loads(file.read_text(encoding="utf-8")), work)
    with TemporaryDirectory(dir=work) as folder:
        started = time.perf_counter()
        built = build(parse_recipe(values, base=Path(folder)))
        yield from compare(name, Lake(built.root), data, time.perf_counter() - started)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(CLAIMS), action="append", help="a recipe; may be repeated")
    parser.add_argument("--quick", action="store_true", help="build the quick variants")
    letters_from = parser.add_mutually_exclusive_group()
    letters_from.add_argument("--archives", type=Path, metavar="DIR", help=f"folder with {' and '.join(ARCHIVES)}")
    letters_from.add_argument("--glyphs", action="store_true", help="run notMNIST's recipes on generated letters")
    letters_from.add_argument("--lake", type=Path, help="read this lake instead of building one; needs one --only")
    parser.add_argument("--work", type=Path, default=Path(gettempdir()) / "imagelake-bench-data")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    args = parser.parse_args()
    only_letters = args.archives or args.glyphs
    able = [name for name in CLAIMS if not ((only_letters and name in DIGITS) or (args.quick and name == "mnist"))]
    names = args.only or able
    if args.lake and (args.quick or len(names) != 1):
        parser.error("--lake needs --only NAME, the recipe that built it, and no --quick")
    for name in set(names) - set(able):
        lacking = "letters" if only_letters and name in DIGITS else "quick variant"
        parser.error(f"the recipe {name} has no {lacking}. Choose from {', '.join(able)}.")
    missing = [file for file in ARCHIVES if args.archives and not (args.archives / file).is_file()]
    if missing:
        parser.error(f"{args.archives} has no {' and no '.join(missing)}. Put the archives there.")
    args.work.mkdir(parents=True, exist_ok=True)
    chosen = archives(args.archives) if args.archives else GLYPHS if args.glyphs else LETTERS
    for name in names:
        data = DIGITS.get(name, chosen)
        try:
            if args.lake:
                data = Data(str(args.lake), data.adapt_recipe)
                rows = compare(name, Lake(args.lake), data)
            else:
                rows = run(name, data, args.work, quick=args.quick)
            show(name, data, rows, as_json=args.json)
        except ImagelakeError as error:
            sys.exit(f"published.py: {name}: {error}")


def show(name: str, data: Data, rows: Iterable[dict[str, Any]], *, as_json: bool) -> None:
    """Print the comparisons of a recipe."""
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(row) + "\n")
        return
    listed = list(rows)
    seconds = listed[0]["build_seconds"]
    heading = f"{name} on {data.title}" + ("" if seconds is None else f", built in {seconds:,.0f} s")
    sys.stdout.write(f"{heading}\n{'=' * len(heading)}\n\n")
    for _, alike in groupby(listed, lambda row: (row["model"], row["settings"], row["assumed"], row["why"])):
        sys.stdout.write(text_of(list(alike)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
