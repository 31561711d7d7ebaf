"""Deciding about pairs: what is shown, recorded, taken back and not asked again."""

import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from making import as_folder, encoded, pictures
from reviewing import ORIGIN, PAIRS, App, build_again, build_review_lake, progress, shown

from pipeline.lake_handle import Lake
from pipeline.review_app.queues import Filters, parse_filters, query_of
from pipeline.verdicts import journal
from pipeline.verdicts.standing import standing

QUEUE = "/queue/pairs?rule=cosine:0.95&split=main&between=1"


def verdicts(lake: Lake) -> pl.DataFrame:
    return journal.read_verdicts(lake.root)


def test_pairs_are_shown_by_falling_score(app: App) -> None:
    pairs = app.lake.scan("pairs").collect().sort("score", descending=True)
    page = app.get(QUEUE)
    done, total = progress(page)
    # 60 noisy copies; a copy of a file is no pair to decide.
    assert (done, total) == (0, PAIRS)
    first = shown(page)
    assert {bytes.fromhex(one) for one in first} <= set(pairs["left_id"]) | set(pairs["right_id"])
    scores = [float(re.search(r"score <b>&?g?t?;?([\d.]+)", app.get(f"{QUEUE}&at={at}"))[1]) for at in (0, 20, 59)]  # type: ignore[index]
    assert scores == sorted(scores, reverse=True)


def test_a_decision_is_recorded_with_rule_score_and_digests(app: App) -> None:
    page = app.get(QUEUE)
    left, right = (bytes.fromhex(one) for one in shown(page))
    following = app.press(page, "same")
    assert progress(following) == (1, PAIRS)
    assert "Recorded: the same." in following
    row = verdicts(app.lake).row(0, named=True)
    images = {one["image_id"]: one for one in app.lake.scan("images").collect().iter_rows(named=True)}
    digests = {images[one]["file_digest"] for one in (left, right)}
    assert {row["file_digest"], row["other_file_digest"]} == digests
    assert (row["verdict"], row["who"], row["rule"]) == ("same", "anna", "cosine:0.95")
    ids = {"left_id": min(left, right), "right_id": max(left, right)}
    assert row["score"] == app.lake.scan("pairs").filter(**ids).select("score").collect().item()


def test_every_pair_is_asked_once_until_all_are_decided(app: App) -> None:
    page, seen = app.get(QUEUE), []
    for number in range(PAIRS):
        seen.append(frozenset(shown(page)))
        page = app.press(page, "same" if number % 3 else "different")
    assert len(set(seen)) == PAIRS
    assert f"All {PAIRS} are decided." in page
    assert len(verdicts(app.lake)) == PAIRS


def test_what_is_decided_is_not_asked_again_after_a_restart(app: App, start: Callable[[Lake], App]) -> None:
    page = app.get(QUEUE)
    first = shown(page)
    app.press(page, "not_sure")
    again = start(app.lake).get(QUEUE)
    assert progress(again) == (1, PAIRS)
    assert shown(again) != first
    assert shown(start(app.lake).get(QUEUE.replace("pairs?", "not-sure?"))) == first


def test_many_subjects_are_looked_up_like_few(
    review_lake: Lake, start: Callable[..., App], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.review_app.decisions._FEW", -1)
    app = start(review_lake)
    page = app.get(QUEUE)
    first = shown(page)
    page = app.press(app.press(page, "same"), "drop", about="left")
    assert progress(page) == (2, PAIRS)
    again = start(review_lake)
    assert progress(again.get(QUEUE)) == (2, PAIRS)
    page = again.press(again.press(again.get(QUEUE), "undo"), "undo")
    assert progress(page) == (0, PAIRS)
    assert shown(page) == first


def test_undo_shows_the_pair_again(app: App) -> None:
    page = app.get(QUEUE)
    first = shown(page)
    back = app.press(app.press(page, "different"), "undo")
    assert shown(back) == first
    assert progress(back) == (0, PAIRS)
    assert "Taken back." in back
    assert verdicts(app.lake)["verdict"].to_list() == ["different", "withdrawn"]
    assert standing(verdicts(app.lake)).is_empty()
    assert "Nothing to take back." in app.press(back, "undo")


def test_undo_works_after_a_restart_and_leaves_those_of_others(app: App, start: Callable[..., App]) -> None:
    page = app.press(app.get(QUEUE), "same")
    app.press(page, "different")
    other = start(app.lake, "bert")
    assert "Nothing to take back." in other.press(other.get(QUEUE), "undo")
    again = start(app.lake)
    page = again.press(again.press(again.get(QUEUE), "undo"), "undo")
    assert progress(page) == (0, PAIRS)


def test_the_same_decision_twice_is_recorded_once(app: App) -> None:
    page = app.get(QUEUE)
    app.press(page, "same")
    app.press(page, "same")
    assert len(verdicts(app.lake)) == 1
    app.press(page, "different")
    assert standing(verdicts(app.lake))["verdict"].to_list() == ["different"]


def test_a_reload_shows_what_others_decided(app: App, start: Callable[..., App]) -> None:
    other = start(app.lake, "bert")
    other.press(other.get(QUEUE), "same")
    assert progress(app.get(QUEUE)) == (0, PAIRS)
    assert 'action="/reload"' in app.get("/")
    app.post("/reload", {})
    assert progress(app.get(QUEUE)) == (1, PAIRS)


def test_arrows_move_without_a_decision(app: App) -> None:
    page = app.get(f"{QUEUE}&at=7")
    assert {"at=8", "at=6"} <= set(re.findall(r"at=[0-9]+", page))
    assert verdicts(app.lake).is_empty()


def test_a_picture_of_a_pair_can_be_dropped_and_settles_it(app: App) -> None:
    page = app.get(QUEUE)
    _, right = shown(page)
    following = app.press(page, "drop", about="right")
    row = verdicts(app.lake).row(0, named=True)
    digest = app.lake.scan("images").filter(image_id=bytes.fromhex(right)).select("file_digest").collect().item()
    assert (row["verdict"], row["file_digest"], row["other_file_digest"]) == ("drop", digest, None)
    assert progress(following) == (1, PAIRS)


def test_a_kept_picture_leaves_its_pair_open(app: App) -> None:
    page = app.get(QUEUE)
    following = app.press(page, "keep", about="left")
    assert shown(following) == shown(page)
    assert "Recorded: keep." in following


def test_filters_choose_pairs(app: App) -> None:
    assert progress(app.get(f"{QUEUE}&label=A"))[1] + progress(app.get(f"{QUEUE}&label=B"))[1] >= PAIRS
    scores = app.lake.scan("pairs").filter(rule="cosine:0.95").select("score").collect()["score"]
    middle = float(scores.sort()[len(scores) // 2])
    low, high = (progress(app.get(f"{QUEUE}&{end}={middle!r}"))[1] for end in ("least", "most"))
    assert low + high == PAIRS + int((scores == middle).any())
    assert progress(app.get(f"{QUEUE}&reason=overlap"))[1] == PAIRS
    assert progress(app.get(f"{QUEUE}&role=test"))[1] == PAIRS
    mixed = [shown(app.get(f"{QUEUE}&order=mixed&at={at}")) for at in range(5)]
    assert mixed != [shown(app.get(f"{QUEUE}&at={at}")) for at in range(5)]
    assert mixed == [shown(app.get(f"{QUEUE}&order=mixed&at={at}")) for at in range(5)]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("rule=sign", "no rule &#39;sign&#39;"),
        ("rule=cosine:0.95&split=mian", "did you mean &#39;main&#39;?"),
        ("rule=cosine:0.95&label=C", "no label &#39;C&#39;"),
        ("rule=cosine:0.95&least=high", "it must be a number"),
        ("rule=cosine:0.95&order=up", "it must be one of highest, lowest, mixed"),
        ("rule=cosine:0.95&attribute=patient", "NAME=VALUE"),
        ("rule=cosine:0.95&attribute=patient=1", "no attribute &#39;patient&#39;"),
    ],
)
def test_a_wrong_filter_is_explained(app: App, query: str, said: str) -> None:
    answer = app.client.get(f"/queue/pairs?{query}")
    assert answer.status_code == 409
    assert said in answer.text


def test_a_conflict_is_settled_by_a_label(app: App) -> None:
    page = app.get("/queue/conflicts?rule=cosine:0.95&split=main")
    assert progress(page) == (0, 2)
    following = app.press(page, "label", about="left", right_label="A")
    row = verdicts(app.lake).row(0, named=True)
    assert (row["verdict"], row["label"]) == ("label", "A")
    assert progress(following) == (1, 2)


def test_a_conflict_of_the_same_picture_stays_open_until_a_label_is_right(app: App) -> None:
    # The first is a conflict of equal files.
    page = app.get("/queue/conflicts?rule=cosine:0.95&split=main&at=1")
    following = app.press(page, "same")
    assert progress(following) == (0, 2)
    assert shown(following) == shown(page)
    following = app.press(following, "not_sure")
    assert progress(following) == (0, 2)
    assert shown(following) != shown(page)
    assert progress(app.press(page, "different")) == (1, 2)


def test_conflicts_of_equal_files_are_asked_under_a_rule_that_compares_keys(app: App) -> None:
    page = app.get("/queue/conflicts?rule=exact&split=main")
    assert progress(page) == (0, 1)
    assert "both have the same file" in page
    app.press(page, "label", about="right", right_label="B")
    assert progress(app.get("/queue/conflicts?rule=exact&split=main")) == (1, 1)


def test_decisions_survive_new_data_and_moved_files(tmp_path: Path, start: Callable[[Lake], App]) -> None:
    app = start(build_review_lake(tmp_path))
    page = app.get(QUEUE)
    app.press(app.press(page, "same"), "different")
    (tmp_path / "train" / "A").rename(tmp_path / "train" / "C")
    as_folder(tmp_path / "train", {f"D/{i}.png": encoded(one) for i, one in enumerate(pictures(5, seed=77))})
    build_again(tmp_path)
    shown_now = app.get("/")
    assert "A newer release exists: 2." in shown_now
    assert "Release 2:" in app.post("/reload", {})
    assert progress(app.get(QUEUE)) == (2, PAIRS)
    assert shown(app.get(QUEUE)) != shown(page)


def test_a_pair_is_found_by_its_file_digests_alone(app: App, start: Callable[[Lake], App]) -> None:
    page = app.get(QUEUE)
    left, right = shown(page)
    found = app.lake.scan("images").select("image_id", "content_hash", "file_digest").collect()
    images = {image_id.hex(): journal.Picture(*digests) for image_id, *digests in found.iter_rows()}
    rows = journal.verdict_rows([journal.Verdict("same", images[left], images[right])], "anna")
    journal.append(app.lake.root, [{**row, "content_hash": None, "other_content_hash": None} for row in rows])
    again = start(app.lake)
    assert progress(again.get(QUEUE)) == (1, PAIRS)
    assert progress(again.get("/queue/newest"))[0] == 0
    history = again.get(f"/image/{left}")
    assert f"/image/{right}" in history[history.index("same") :]


def test_a_withdrawal_that_names_no_picture_changes_no_other_verdict(app: App, start: Callable[[Lake], App]) -> None:
    app.press(app.press(app.get("/queue/newest"), "drop"), "keep")
    last = verdicts(app.lake).row(-1, named=True)
    nothing = dict.fromkeys(("file_digest", "content_hash"))
    journal.append(app.lake.root, [{**row, **nothing} for row in journal.withdrawals([last], "anna")])
    assert progress(start(app.lake).get("/queue/newest"))[0] == 1


def test_a_pair_in_no_cluster_opens_no_other_one(tmp_path: Path, start: Callable[[Lake], App]) -> None:
    app = start(build_review_lake(tmp_path))
    page = app.get(QUEUE)
    first = shown(page)
    app.press(page, "different")
    app = start(build_again(tmp_path))
    page = app.get(f"{QUEUE}&at=0")
    assert shown(page) == first
    address = re.search(r'data-key="c" href="([^"]*)"', page)
    assert address is not None
    answer = app.client.get(address[1].replace("&amp;", "&"))
    assert answer.status_code == 409
    assert "this pair is in no cluster of cosine:0.95" in answer.text
    form = {"queue": "clusters", "rule": "cosine:0.95", "about": "cluster", "left": first[0], "verdict": "same"}
    refused = app.client.post("/decide", data=form, headers={"Origin": ORIGIN})
    assert refused.status_code == 409
    assert "is in no cluster of cosine:0.95" in refused.text


def test_the_queue_of_those_not_sure_changes_while_it_is_open(app: App) -> None:
    unsure = QUEUE.replace("pairs?", "not-sure?")
    assert "Nothing matches." in app.get(unsure)
    page = app.get(QUEUE)
    first = shown(page)
    app.press(app.press(page, "not_sure"), "not_sure")
    page = app.get(unsure)
    assert progress(page) == (0, 2)
    following = app.press(page, "same")
    assert progress(following) == (0, 1)
    assert shown(following) != first
    back = app.press(following, "undo")
    assert progress(back) == (0, 2)
    assert shown(back) == first


@pytest.mark.parametrize(
    "filters",
    [
        Filters(),
        Filters(rule="exact", split="main", between=True, order="lowest"),
        Filters(least=0.0, most=1.0),
        Filters(label="highest", role="False", dataset="None"),
    ],
)
def test_an_address_has_every_filter(filters: Filters) -> None:
    assert parse_filters(query_of(filters)) == filters
