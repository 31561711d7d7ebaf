"""The numbers a reader should see first, read off the rest of the summary."""

from typing import Any

Summary = dict[str, Any]


def find_headline(summary: Summary) -> dict[str, Any]:
    """Pick the headline numbers.

    One split and one rule speak for all: the first split that was scored, else the first; the rule that
    dropped most of its rows, else the strictest.

    Args:
        summary: the summary without its headline.

    Returns:
        images, rejects, sources, rule (None without rules), redundant and conflicts (of that rule, None
        without one), overlap (split_name, role, other, images, of, after sanitizing; of sources, with
        split_name and after None, where no split is named; None where there are no two to compare), accuracy
        (model, split_name, train_size, original, sanitized, drop, by; None without both scores). Where sanitizing drops
        no test image, sanitized is by a rule, which `by` names, as far as it finds overlap with what the model may have
        been trained on.
    """
    scored = _last_scored(summary)
    split = _pick(summary["overlap"]["splits"], scored)
    rule = _rule(summary, split)
    counts: Summary = next((row for row in summary["clusters"] if row["rule"] == rule), {})
    return {
        "images": sum(source["images"] for source in summary["sources"]),
        "rejects": summary["rejects"]["total"],
        "sources": len(summary["sources"]),
        "rule": rule,
        "redundant": counts.get("redundant"),
        "conflicts": counts.get("conflicts"),
        "overlap": _overlap(split, summary["overlap"]["sources"], rule),
        "accuracy": scored and _by_rule(scored, rule),
    }


def _last_scored(summary: Summary) -> Summary | None:
    for curve in summary["accuracy"]:
        both = [p for p in curve["points"] if p["original"] is not None and p["sanitized"] is not None]
        if both:
            last = {name: both[-1][name] for name in ("train_size", "original", "sanitized")}
            drop = last["original"] - last["sanitized"]
            named = {"model": curve["model"], "split_name": curve["split_name"], **last, "drop": drop}
            told = [at for at in curve["leakage"] if at["train_size"] == last["train_size"]]
            return {**named, "rules": told[0]["rules"] if told and both[-1]["overlap"] is None else []}
    return None


def _by_rule(scored: Summary, rule: str | None) -> Summary:
    """Take the sanitized score by the rule where the split's own sanitizing leaves the test role whole."""
    kept = {name: value for name, value in scored.items() if name != "rules"}
    found = [row for row in scored["rules"] if row["rule"] == rule and rule and row["images"] and row["sanitized"]]
    if not found:
        return {**kept, "by": None}
    return {**kept, "by": rule, "sanitized": found[0]["sanitized"]["mean"], "drop": found[0]["leak"]["mean"]}


def _pick(splits: list[Summary], scored: Summary | None) -> Summary | None:
    named = [split for split in splits if scored and split["split_name"] == scored["split_name"]]
    return next(iter(named or splits), None)


def _rule(summary: Summary, split: Summary | None) -> str | None:
    rules = [row["rule"] for row in summary["clusters"]]
    drops = [s["dropped_by"] for s in summary["splits"] if split and s["split_name"] == split["split_name"]]
    sanitizing = [row["rule"] for rows in drops for row in rows if row["rule"] in rules]
    return next(iter(sanitizing or rules), None)


def _overlap(split: Summary | None, sources: Summary, rule: str | None) -> Summary | None:
    """Count images of the last role with a twin in the first.

    That is test in train, or valid in train where there is no test. Without a named split the two sources
    that share most stand in for roles.
    """
    square = split or sources
    last = len(square["roles"]) - 1
    if rule is None or last < 1:
        return None
    counts = next(row for row in square["rules"] if row["rule"] == rule)
    cells = counts["cells"]
    places = [(i, j) for i in range(last + 1) for j in range(last + 1) if i != j]
    i, j = (last, 0) if split else max(places, key=lambda place: cells[place[0]][place[1]])
    return {
        "split_name": split["split_name"] if split else None,
        "role": square["roles"][i],
        "other": square["roles"][j],
        "images": cells[i][j],
        "of": square["sizes"][i],
        "after": counts["kept_cells"][i][j] if split else None,
    }
