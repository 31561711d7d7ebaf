"""`imagelake overlap`: count duplicates by role, or list the pairs or clusters of a rule."""

from pathlib import Path
from typing import Any

import click
import polars as pl

from pipeline.cli.options import as_json, of_release, the_lake
from pipeline.cli.show import show_frame, show_json
from pipeline.cli.terminal import print_line
from pipeline.lake_handle import Lake
from pipeline.maintenance import overlap
from pipeline.progress import plural
from pipeline.review import (
    ClusterReview,
    PairReview,
    ReviewQuery,
    review_clusters,
    review_pairs,
    write_clusters,
    write_review,
)

_SHOWN = 5
# Lower bounds of the size classes in which clusters are counted.
_SIZES = (2, 3, 4, 5, 10, 100, 1_000, 10_000, 100_000)


@click.command("overlap")
@the_lake
@click.option("--split", metavar="SPLIT", help="Split whose roles are compared; by default the splits of the sources.")
@click.option("--rule", metavar="RULE", help="List the pairs of this rule, highest score first, instead of counts.")
@click.option(
    "--min-score",
    metavar="SCORE",
    type=click.FloatRange(0, 1),
    help="Only pairs (or clusters of pairs) with at least this score.",
)
@click.option(
    "--top", metavar="NUMBER", type=click.IntRange(min=1), help="Number of pairs or clusters to list; 50 by default."
)
@click.option("--between", is_flag=True, help="Only pairs (or clusters) with images in different roles.")
@click.option("--conflicts", is_flag=True, help="Only pairs (or clusters) with images of different labels.")
@click.option("--best", metavar="ROLE", help="For every image of ROLE, only its closest pair with another role.")
@click.option("--clusters", is_flag=True, help="List the largest clusters of the rule instead of its pairs.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write an HTML page of the pairs or clusters with their images.",
)
@of_release("show")
@as_json
def overlap_command(
    lake: str,
    split: str | None,
    rule: str | None,
    release: int | None,
    *,
    json_: bool,
    **options: Any,  # noqa: ANN401 - the options above
) -> None:
    """Count for each rule how many images of every role of LAKE occur in another role, and the label conflicts.

    With --rule, list the pairs of the rule instead. The score of a pair is higher the more similar its images are. A
    stricter threshold needs no new build: photo:0.7 is read from the stored pairs of photo:0.6, as with --rule
    photo:0.6 --min-score 0.7.

    \b
    imagelake overlap data/demo --rule sign --conflicts
    imagelake overlap data/demo --rule cosine:0.95 --split main --best test --html review.html
    imagelake overlap data/demo --rule cosine:0.95 --min-score 0.99
    imagelake overlap data/demo --rule exact --clusters --split main --html clusters.html
    """  # noqa: D301 - click reads the backspace: it keeps the lines as they are
    if rule is None:
        names = ("min_score", "top", "between", "conflicts", "best", "clusters", "html")
        _refuse(options, *names, why="needs --rule RULE")
        _print_counts(Lake(lake, release), split, json_=json_)
        return
    clusters, html = options.pop("clusters"), options.pop("html")
    query = ReviewQuery(rule, split, **{name: value for name, value in options.items() if value is not None})
    if clusters:
        _refuse({"best": query.best}, "best", why="is for pairs: leave out --clusters")
        _print_clusters(Lake(lake, release), query, html, json_=json_)
    else:
        _print_pairs(Lake(lake, release), query, html, json_=json_)


def _refuse(options: dict[str, Any], *names: str, why: str) -> None:
    for name in names:
        if options[name] is not None and options[name] is not False:
            raise click.UsageError(f"--{name.replace('_', '-')} {why}.")


def _print_counts(lake: Lake, split: str | None, *, json_: bool) -> None:
    found = overlap(lake, split)
    if json_:
        show_json(found._asdict())
        return
    if split is not None:
        print_line(f"Roles of split '{split}' before sanitizing: images that it drops are counted too.")
    print_line("Images of a role (row) that also occur in another role (column), or repeatedly in their own:")
    show_frame(found.matrix)
    print_line("Duplicates within a role: clusters, images after the first of each, clusters with several labels:")
    show_frame(found.repeats)
    counts = found.conflicts.group_by("rule", maintain_order=True).len()
    listed = ", ".join(f"{count:,} by {rule}" for rule, count in counts.rows()) or "none"
    print_line(f"Label conflicts, clusters with several labels: {listed}")
    if len(found.conflicts):
        first = found.conflicts.group_by("rule", maintain_order=True).head(_SHOWN).drop("cluster_id")
        show_frame(first.with_columns(pl.col("labels").list.join(" "), pl.col("paths").list.head(3).list.join(", ")))
        print_line(f"At most {_SHOWN} per rule are shown; --json lists all.")


def _print_pairs(lake: Lake, query: ReviewQuery, html: Path | None, *, json_: bool) -> None:
    review = review_pairs(lake, query)
    page = write_review(lake, review, html) if html else None
    if json_:
        show_json({**review._asdict(), "page": page} if page else review._asdict())
        return
    print_line(review.headline)
    _print_stored_rule(review)
    if review.from_clusters:
        print_line(f"{review.rule} compares keys only: its pairs are made from its clusters, and every score is 1.")
    if page:
        print_line(page)
    elif len(review.shown):
        show_frame(
            review.shown.select(
                "score", roles=_both("role", "and"), labels=_both("label", "or"), left="left_path", right="right_path"
            ),
            rows=query.top,
        )


def _print_stored_rule(found: PairReview | ClusterReview) -> None:
    if found.stored != found.rule:
        print_line(f"Read from the stored pairs of {found.stored} with a score of {found.least:g} or more.")


def _both(name: str, joined: str) -> pl.Expr:
    """Join the values of both images; a value that is equal for both is shown once."""
    left, right = pl.col(f"left_{name}").fill_null("-"), pl.col(f"right_{name}").fill_null("-")
    return pl.when(left == right).then(left).otherwise(pl.format(f"{{}} {joined} {{}}", left, right))


def _print_clusters(lake: Lake, query: ReviewQuery, html: Path | None, *, json_: bool) -> None:
    shapes = review_clusters(lake, query)
    page = write_clusters(lake, query, shapes, html) if html else None
    if json_:
        show_json({**shapes._asdict(), "page": page} if page else shapes._asdict())
        return
    counted = plural(shapes.clusters, "cluster")
    if not shapes.matching:
        found = f"none of {counted} matches" if shapes.clusters else "no cluster"
        print_line(f"{shapes.rule}: {found}.")
        if page:
            print_line(page)
        return
    some = f"{shapes.matching:,} of " if shapes.matching < shapes.clusters else ""
    longest = "-" if shapes.diameter is None else f"{'' if shapes.exact else 'at least '}{shapes.diameter:,}"
    print_line(
        f"{shapes.rule}: {some}{counted}, the largest of {shapes.largest:,} images, "
        f"the longest diameter {longest} (pairs from end to end)."
    )
    _print_stored_rule(shapes)
    if shapes.note:
        print_line(shapes.note)
    print_line(f"Clusters by images: {_histogram(shapes.sizes)}.")
    if page:
        print_line(page)
        return
    least = pl.when("exact").then(pl.lit("")).otherwise(pl.lit("at least "))
    shown = shapes.shown.select(
        "images",
        "pairs",
        pl.format("{}{}", least, "diameter").fill_null("-").alias("diameter"),
        "lowest",
        *(_counted(name) for name in ("labels", "roles")),
        pl.col("paths").list.first().alias("first path"),
    )
    show_frame(shown, rows=len(shown))
    if len(shown) < shapes.matching:
        print_line(f"{len(shown):,} of {shapes.matching:,} shown, the largest first.")


def _counted(name: str) -> pl.Expr:
    one = pl.format("{} {}", pl.element().struct["value"].fill_null("-"), pl.element().struct["images"])
    return pl.col(name).list.eval(one).list.join(", ")


def _histogram(sizes: pl.DataFrame) -> str:
    parts = []
    for low, above in zip(_SIZES, (*_SIZES[1:], None), strict=True):
        inside = sizes.filter((pl.col("images") >= low) & (pl.lit(above is None) | (pl.col("images") < (above or 0))))
        if len(inside):
            to = " or more" if above is None else f" to {above - 1:,}" if above - 1 > low else ""
            parts.append(f"{low:,}{to} images in {inside['clusters'].sum():,}")
    return ", ".join(parts)
