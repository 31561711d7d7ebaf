"""imagelake overlap."""

from pathlib import Path
from typing import Any

import click
import polars as pl

from pipeline.cli.options import as_json, of_release, the_lake
from pipeline.cli.say import say
from pipeline.cli.show import show_frame, show_json
from pipeline.lake_handle import Lake
from pipeline.maintenance import overlap
from pipeline.review import Question, Review, Shapes, review_clusters, review_pairs, write_review

_SHOWN = 5
# Clusters of these sizes and above are counted together.
_SIZES = (2, 3, 4, 5, 10, 100, 1_000, 10_000, 100_000)


@click.command("overlap")
@the_lake
@click.option(
    "--split", metavar="SPLIT", help="Named split whose roles are compared; the sources' own splits by default."
)
@click.option("--rule", metavar="RULE", help="List the pairs of this rule, closest first, instead of counting.")
@click.option(
    "--min-score",
    metavar="SCORE",
    type=click.FloatRange(0, 1),
    help="Only pairs (or clusters of pairs) with this score or a higher one.",
)
@click.option("--top", metavar="NUMBER", type=click.IntRange(min=1), help="How many to list; 50 by default.")
@click.option("--between", is_flag=True, help="Only pairs (or clusters) whose images lie in different roles.")
@click.option("--conflicts", is_flag=True, help="Only pairs (or clusters) whose images bear different labels.")
@click.option("--best", metavar="ROLE", help="Of every image of ROLE only its closest pair with another role.")
@click.option("--clusters", is_flag=True, help="List the largest clusters of the rule instead of its pairs.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the pairs with their pictures.")
@of_release("look at")
@as_json
def overlap_command(
    lake: str,
    split: str | None,
    rule: str | None,
    release: int | None,
    *,
    json_: bool,
    **asked: Any,  # noqa: ANN401 - the options above
) -> None:
    """Show, rule by rule, how much of every role of LAKE occurs in another, and label conflicts.

    With --rule, list what to look at; the score of a pair is higher the closer its images are. Where the lake stores
    photo:0.6, photo:0.7 is read from the pairs of that, and so is --rule photo:0.6 --min-score 0.7.

    \b
    imagelake overlap data/demo --rule sign --conflicts
    imagelake overlap data/demo --rule cosine:0.95 --split main --best test --html look.html
    imagelake overlap data/demo --rule cosine:0.95 --min-score 0.99
    """  # noqa: D301 - click wants the backspace itself, to leave the lines alone
    if rule is None:
        names = ("min_score", "top", "between", "conflicts", "best", "clusters", "html")
        _refuse(asked, *names, why="needs --rule RULE")
        _counts(lake, split, release, json_=json_)
        return
    clusters, html = asked.pop("clusters"), asked.pop("html")
    question = Question(rule, split, **{name: value for name, value in asked.items() if value is not None})
    if clusters:
        _refuse({"best": question.best, "html": html}, "best", "html", why="is about pairs: leave out --clusters")
        _clusters(review_clusters(Lake(lake, release), question), json_=json_)
    else:
        _pairs(lake, question, html, release, json_=json_)


def _refuse(asked: dict[str, Any], *names: str, why: str) -> None:
    for name in names:
        if asked[name] is not None and asked[name] is not False:
            raise click.UsageError(f"--{name.replace('_', '-')} {why}.")


def _counts(lake: str, split: str | None, release: int | None, *, json_: bool) -> None:
    found = overlap(Lake(lake, release), split)
    if json_:
        show_json(found._asdict())
        return
    say("Images of a role (row) that occur in another role, or again in their own:")
    show_frame(found.matrix)
    say("What repeats inside a role: clusters, images beyond the first of each, clusters with several labels:")
    show_frame(found.repeats)
    counts = found.conflicts.group_by("rule", maintain_order=True).len()
    listed = ", ".join(f"{count:,} by {rule}" for rule, count in counts.rows()) or "none"
    say(f"Label conflicts, clusters with several labels: {listed}")
    if len(found.conflicts):
        first = found.conflicts.group_by("rule", maintain_order=True).head(_SHOWN).drop("cluster_id")
        show_frame(first.with_columns(pl.col("labels").list.join(" "), pl.col("paths").list.head(3).list.join(", ")))
        say(f"Shown are {_SHOWN} a rule at most; --json lists all.")


def _pairs(lake: str, question: Question, html: Path | None, release: int | None, *, json_: bool) -> None:
    opened = Lake(lake, release)
    review = review_pairs(opened, question)
    page = write_review(opened, review, html) if html else None
    if json_:
        show_json({**review._asdict(), "page": page} if page else review._asdict())
        return
    say(review.headline)
    _say_from(review)
    if review.from_clusters:
        say(f"{review.rule} is decided by keys alone: its pairs were made of its clusters, every score is 1.")
    if page:
        say(page)
    elif len(review.shown):
        show_frame(
            review.shown.select(
                "score", roles=_both("role", "and"), labels=_both("label", "or"), left="left_path", right="right_path"
            ),
            rows=question.top,
        )


def _say_from(found: Review | Shapes) -> None:
    if found.stored != found.rule:
        say(f"Read from the stored pairs of {found.stored} with a score of {found.least:g} or more.")


def _both(name: str, joined: str) -> pl.Expr:
    """What both images have, once where they have the same."""
    left, right = pl.col(f"left_{name}").fill_null("-"), pl.col(f"right_{name}").fill_null("-")
    return pl.when(left == right).then(left).otherwise(pl.format(f"{{}} {joined} {{}}", left, right))


def _clusters(shapes: Shapes, *, json_: bool) -> None:
    if json_:
        show_json(shapes._asdict())
        return
    noun = "cluster" if shapes.clusters == 1 else "clusters"
    if not shapes.matching:
        asked_of = f"none of {shapes.clusters:,} {noun} is asked for" if shapes.clusters else "no cluster"
        say(f"{shapes.rule}: {asked_of}.")
        return
    some = f"{shapes.matching:,} of " if shapes.matching < shapes.clusters else ""
    longest = "-" if shapes.diameter is None else f"{'' if shapes.exact else 'at least '}{shapes.diameter:,}"
    say(
        f"{shapes.rule}: {some}{shapes.clusters:,} {noun}, the largest of {shapes.largest:,} images, "
        f"the longest diameter {longest} (pairs from end to end)."
    )
    _say_from(shapes)
    say(f"Clusters by images: {_histogram(shapes.sizes)}.")
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
        say(f"{len(shown):,} of {shapes.matching:,} shown, the largest first.")


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
