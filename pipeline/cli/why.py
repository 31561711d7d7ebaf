"""`imagelake why`: explain one image in plain words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from pipeline.cli.options import as_json, of_release, the_lake
from pipeline.cli.show import show_json
from pipeline.cli.terminal import print_line
from pipeline.lake_handle import Lake
from pipeline.progress import plural
from pipeline.recipe.issues import KINDS

# Reasons of the table splits, in words.
_REASONS = {
    "overlap": "another role keeps a duplicate",
    "repeat": "its role has a duplicate",
    "conflict": "a duplicate has another label",
    "verdict": "a person decided so",
    "issue": "the split drops images with this issue",
}
# Pairs and other images that are printed; --json gives up to 10.
_PRINTED = 3

Image = Mapping[str, Any]


@click.command("why")
@the_lake
@click.argument("item", metavar="PATH-or-ID-or-DIGEST")
@of_release("read")
@as_json
def why_command(lake: str, item: str, release: int | None, *, json_: bool) -> None:
    """Explain one image of LAKE in plain words. Nothing is written.

    It prints source, label, digests, clusters by rule with the pairs that chain the image to the representative of the
    cluster, issues, roles, why and for which image it was dropped, models that misclassify it, and since which release
    it is in the lake. Of a reject it prints the reason.

    An image is named by its path in the source, its image_id or content_hash of 32 hexadecimal digits, or the SHA-256
    digest of its file. All images that have it are explained.

    \b
    imagelake why data/demo 931b0c5ab51e8b5ba7b8e3d7a7c5d1f0
    imagelake why digits-lake 0 --json
    """  # noqa: D301 - click reads the backspace: it keeps the lines as they are
    found = Lake(lake, release).why(item)
    if json_:
        show_json(found._asdict())
        return
    for number, image in enumerate(found.images):
        if number:
            print_line("")
        for line in describe(image):
            print_line(line)
    for reject in found.rejects:
        print_line(f"{reject['path']} of {reject['dataset']}/{reject['split']} is a reject, not an image")
        print_line(f"  {reject['reason']}: {reject['detail']}")
    if found.more:
        print_line(f"{plural(found.more, 'more image')} of the lake have this digest; sql lists them.")


def describe(image: Image) -> Iterator[str]:
    """Describe an image in lines; `image` is as in `Lake.why`."""
    yield f"{image['path']} of {image['dataset']}/{image['split']}"
    label = "no label" if image["label"] is None else f"label {image['label']}"
    colour = "gray" if image["channels"] == 1 else "RGB"
    yield f"  {label}; {image['height']} x {image['width']} pixels, {colour}; a file of {image['file_size']:,} bytes"
    earlier = " or an earlier one" if image["or_earlier"] else ""
    yield f"  in the lake since release {image['since']}{earlier}, from {image['source']}, shard {image['shard']}"
    yield f"  image_id {image['image_id']}"
    yield f"  content_hash {image['content_hash']}"
    if image["file_digest"]:
        yield f"  SHA-256 of the file {image['file_digest']}"
    for original in image["original"]:
        taken = f", taken at {original['taken_at']}" if original["taken_at"] else ""
        where = f", at {original['location']}" if original["location"] else ""
        yield f"  original: {original['format']}, {original['height']} x {original['width']} pixels{taken}{where}"
    for attribute in image["attributes"]:
        yield f"  attribute {attribute['name']}: {attribute['value']}"
    yield from _clusters(image)
    yield from _issues(image["issues"])
    yield from _roles(image["roles"])
    yield from _models(image)
    yield from _verdicts(image["verdicts"])


def _clusters(image: Image) -> Iterator[str]:
    if not image["clusters"]:
        yield "  no duplicates by any rule of the lake"
    for cluster in image["clusters"]:
        yield f"  {cluster['rule']}: in a cluster of {plural(cluster['images'], 'image')} ({cluster['meaning']})"
        if cluster["chain"]:
            yield f"    chained to its representative {_name(cluster['representative'])}: {_chain(cluster['chain'])}"
        elif cluster["cluster_id"] == image["image_id"] and cluster["by"] == "pairs":
            yield "    it is the representative of the cluster"
        if cluster["closest"]:
            listed = "; ".join(f"{_score(pair)} {_name(pair['image'])}" for pair in cluster["closest"][:_PRINTED])
            least = "" if cluster["all_pairs"] else "at least "
            yield f"    {least}{plural(cluster['pairs'], 'pair')}, the closest: {listed}"
        else:
            more = "; ..." if cluster["images"] - 1 > _PRINTED else ""
            words = {"equal keys": "equal keys", "verdicts": "equal keys, or the same by a verdict"}
            equal = words.get(cluster["by"], "equal constant images, or the same by a verdict")
            yield f"    {equal}: {'; '.join(map(_name, cluster['others'][:_PRINTED]))}{more}"


def _issues(issues: Sequence[Image]) -> Iterator[str]:
    for issue in issues:
        suggested = f"; suggested label {issue['suggested_label']}" if issue["suggested_label"] is not None else ""
        agreed = f", which {issue['agreement']:.0%} of the nearest have" if issue["agreement"] is not None else ""
        other = f"; the nearest such image is {_name(issue['other_id'])}" if issue["other_id"] else ""
        meaning = KINDS[issue["kind"]].meaning if issue["kind"] in KINDS else "a kind of a newer imagelake"
        yield f"  issue {issue['kind']}: {issue['score']:.3f} ({meaning}){suggested}{agreed}{other}"


def _roles(roles: Sequence[Image]) -> Iterator[str]:
    if not roles:
        yield "  in no split"
    for role in roles:
        corrected = ""
        if role["label_reason"]:
            corrected = (
                f", label corrected to {role['corrected_label']}"
                if role["corrected_label"]
                else ", without its label, which is wrong"
            )
        if role["kept"]:
            yield f"  split {role['split_name']}: {role['role']}, kept{corrected}"
            continue
        why = _REASONS.get(role["reason"], role["reason"])
        by = f"by {role['dropped_by']} ({role['reason']}: {why})" if role["reason"] != "verdict" else f"as {why}"
        yield f"  split {role['split_name']}: {role['role']}, dropped {by}{corrected}"
        chain = f", by the chain {_chain(role['chain'])}" if role["chain"] else ", which has an equal key"
        if role["dropped_for"]:
            yield f"    for {_name(role['dropped_for'])}{chain}"


def _verdicts(verdicts: Sequence[Image]) -> Iterator[str]:
    for one in verdicts:
        said = one["verdict"] if one["label"] is None else f"label {one['label']}"
        other = f" as the picture {one['other_file_digest']}" if one["other_file_digest"] else ""
        note = f" ({one['note']})" if one["note"] else ""
        counts = "" if one["counts"] else "; no longer counts"
        yield f"  verdict of {one['who']} at {one['created_at'][:16]}: {said}{other}{note}{counts}"


def _models(image: Image) -> Iterator[str]:
    for miss in image["misses"]:
        run = f"{miss['model']}@{miss['split_name']}, trained on {plural(miss['train_size'], 'image')}"
        yield f"  misclassified by {run}: {miss['predicted']}{_probability(miss)}, not {miss['label']}"
        if miss["nearest_id"]:
            yield f"    nearest training image {_name(miss['nearest_id'])}"
    for one in image["predictions"]:
        run = f"{one['model']} in {one['role']} of {one['split_name']}"
        yield f"  predicted by {run}: {one['predicted']}{_probability(one)}"


def _probability(row: Image) -> str:
    return "" if row["probability"] is None else f" ({row['probability']:.3f})"


def _chain(steps: Sequence[Image]) -> str:
    return " ".join(f"-- {_score(step)} --> {_name(step['image'])}" for step in steps)


def _score(step: Image) -> str:
    return "equal constant image" if step["score"] is None else f"{step['score']:.4f}"


def _name(image: Image) -> str:
    if "path" not in image:
        return f"image {image['image_id']}"
    return f"{image['path']} of {image['dataset']}/{image['split']}"
