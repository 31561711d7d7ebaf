"""The other queues and pages: clusters, images, grid, rejects, and lakes that cannot be written to."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from making import as_folder, encoded, files_of, pictures, recipe
from pages import Page
from reviewing import PAIRS, App, build_review_lake, progress, shown

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import DamagedLakeError, LakeError
from pipeline.lake_handle import Lake
from pipeline.review_app import review as review_module
from pipeline.verdicts import journal
from pipeline.verdicts.standing import standing


def of_standing(lake: Lake) -> pl.DataFrame:
    return standing(journal.read_verdicts(lake.root))


def test_the_overview_names_every_queue_that_has_something(app: App) -> None:
    page = app.get("/")
    links = re.findall(r'<h2><a href="(/[^"?]*)', page)
    assert links == [
        "/queue/pairs",
        "/queue/conflicts",
        "/queue/clusters",
        "/queue/misses",
        "/queue/newest",
        "/queue/not-sure",
        "/rejects",
    ]
    for address in re.findall(r'href="(/queue/[^"]*)"', page):
        assert not Page(app.get(address.replace("&amp;", "&"))).open


def test_a_whole_cluster_is_decided_and_taken_back_together(tmp_path: Path, start: Callable[[Lake], App]) -> None:
    one = pictures(1)[0]
    near = {f"A/{i}.png": encoded(np.clip(one.astype(int) + i, 0, 255).astype(np.uint8)) for i in range(5)}
    as_folder(tmp_path / "train", {**near, **files_of(4, seed=3)})
    build(recipe(tmp_path, {"uri": "train"}, dedup={"rules": ["cosine:0.95"]}), engine=LocalEngine(1))
    app = start(Lake(tmp_path / "lake"))
    page = app.get("/queue/clusters?rule=cosine:0.95")
    assert "5 images" in page
    assert progress(page) == (0, 1)
    page = app.press(page, "different")
    assert progress(page) == (1, 1)
    assert of_standing(app.lake)["verdict"].to_list() == ["different"] * 10
    # One entry of the journal.
    assert len(list((tmp_path / "lake" / ".verdicts").iterdir())) == 1
    again = start(app.lake)
    page = again.press(again.get("/queue/clusters?rule=cosine:0.95"), "undo")
    assert progress(page) == (0, 1)
    assert of_standing(app.lake).is_empty()


def test_a_cluster_is_decided_once_all_its_pairs_are(app: App) -> None:
    page = app.get("/queue/clusters?rule=cosine:0.95&split=main")
    assert progress(page) == (0, PAIRS)
    pair = app.get("/queue/pairs?rule=cosine:0.95&split=main")
    address = re.search(r'data-key="c" href="([^"]*)"', pair)
    assert address is not None
    cluster = app.get(address[1].replace("&amp;", "&"))
    assert all(one in cluster for one in shown(pair))
    app.press(pair, "same")
    assert progress(app.get("/queue/clusters?rule=cosine:0.95&split=main")) == (1, PAIRS)


def test_a_cluster_of_keys_is_taken_apart_pair_by_pair(tmp_path: Path, start: Callable[[Lake], App]) -> None:
    one = pictures(1)[0] | 128
    as_folder(tmp_path / "train", {f"A/{i}.png": encoded((one & (255 - i)).astype(np.uint8)) for i in range(4)})
    build(recipe(tmp_path, {"uri": "train"}, dedup={"rules": ["sign"]}), engine=LocalEngine(1))
    app = start(Lake(tmp_path / "lake"))
    app.press(app.get("/queue/clusters?rule=sign"), "different")
    assert len(of_standing(app.lake)) == 6
    app.press(app.get("/queue/clusters?rule=sign&at=0"), "same")
    # The representative with each other image.
    assert of_standing(app.lake)["verdict"].value_counts().sort("verdict").rows() == [("different", 3), ("same", 3)]
    # Each decision is taken back by itself.
    app.press(app.get("/queue/clusters?rule=sign&at=0"), "undo")
    assert of_standing(app.lake)["verdict"].to_list() == ["different"] * 6
    app.press(app.get("/queue/clusters?rule=sign&at=0"), "undo")
    assert of_standing(app.lake).is_empty()


def test_a_cluster_with_too_many_pairs_is_refused(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    page = app.get("/queue/clusters?rule=cosine:0.95")
    monkeypatch.setattr(review_module, "_MOST_PAIRS", 0)
    with pytest.raises(AssertionError, match="too many pairs to decide at once"):
        app.press(page, "different")
    assert journal.read_verdicts(app.lake.root).is_empty()


def test_misclassified_images_show_the_prediction(app: App) -> None:
    misses = app.lake.scan("misses").collect()
    page = app.get("/queue/misses?split=main")
    assert progress(page)[1] <= len(misses)
    assert "predicted: " in page
    following = app.press(page, "keep")
    assert progress(following)[0] == 1
    assert shown(following) != shown(page)


def test_newest_images_are_those_that_the_release_before_had_not(tmp_path: Path, start: Callable[[Lake], App]) -> None:
    files = files_of(6)
    as_folder(tmp_path / "train", dict(list(files.items())[:4]))
    build(recipe(tmp_path, {"uri": "train"}), engine=LocalEngine(1))
    assert progress(start(Lake(tmp_path / "lake")).get("/queue/newest")) == (0, 4)
    as_folder(tmp_path / "train", files)
    build(recipe(tmp_path, {"uri": "train"}), engine=LocalEngine(1))
    app = start(Lake(tmp_path / "lake"))
    page = app.get("/queue/newest")
    assert progress(page) == (0, 2)
    assert "00004.png" in page
    app.press(page, "drop")
    assert of_standing(app.lake)["verdict"].to_list() == ["drop"]


def test_one_of_several_images_with_the_same_file_is_found_by_its_own_label(app: App) -> None:
    # A picture of train, labelled A, is labelled B in test.
    images = app.lake.scan("images").collect()
    for label in ("A", "B"):
        files = images.filter(label=label)["file_digest"].n_unique()
        assert progress(app.get(f"/queue/newest?label={label}")) == (0, files)


def test_the_page_of_an_image_has_pairs_roles_and_history(app: App) -> None:
    page = app.get("/queue/pairs?rule=cosine:0.95&split=main")
    left, right = shown(page)
    app.press(page, "different")
    found = app.get(f"/image/{left}")
    assert f"/image/{right}" in found
    for text in ("cosine:0.95", "main", "different", "anna", "image_id", "shard"):
        assert text in found
    app.press(found, "label", right_label="Ä b")
    again = app.get(f"/image/{left}")
    assert "label Ä b" in again
    app.press(again, "undo")
    last = app.get(f"/image/{left}")
    assert "taken back" in last
    assert "(no longer counts)" in last


def test_an_empty_label_is_refused(app: App) -> None:
    page = app.get("/queue/newest")
    with pytest.raises(AssertionError, match="the right label is empty"):
        app.press(page, "label", right_label="  ")


def test_the_grid_shows_the_images_of_a_query(app: App) -> None:
    page = app.get("/grid?sql=SELECT image_id, label, height FROM images ORDER BY image_id")
    ids = app.lake.scan("images").select("image_id").collect()["image_id"].sort()
    found = re.findall(r'href="/image/([0-9a-f]{32})"', page)
    assert found == [one.hex() for one in ids[:60]]
    assert "height 28" in page
    second = app.get("/grid?page=1&sql=SELECT image_id, label, height FROM images ORDER BY image_id")
    assert re.findall(r'href="/image/([0-9a-f]{32})"', second) == [one.hex() for one in ids[60:120]]


def test_the_grid_has_a_last_page(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review_module, "_MOST_PAGES", 2)
    query = "sql=SELECT image_id FROM images ORDER BY image_id"
    last = app.get(f"/grid?page=1&{query}")
    assert "page 2 of 2" in last
    assert app.get(f"/grid?page=999999&{query}") == last


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1", "no column image_id"),
        ("SELECT image_id FROM nowhere", "nowhere"),
        ("DROP TABLE images", "one SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled"),
    ],
)
def test_a_query_that_cannot_be_shown_is_explained(app: App, query: str, said: str) -> None:
    assert said in app.get(f"/grid?sql={query}")


def test_a_query_with_odd_ids_shows_the_others(app: App) -> None:
    page = app.get("/grid?sql=SELECT image_id FROM images UNION ALL SELECT 'x' UNION ALL SELECT NULL")
    assert f"{app.lake.scan('images').collect().height + 2} rows" in page


def test_rejects_are_listed_by_reason(app: App) -> None:
    page = app.get("/rejects")
    assert "A/broken.png" in page
    assert "1 file did not become an image" in page
    assert "A/broken.png" not in app.get("/rejects?reason=empty")


def test_a_picture_is_a_png(app: App) -> None:
    image_id = shown(app.get("/queue/pairs"))[0]
    answer = app.client.get(f"/picture/{image_id}.png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")
    for wrong in ("00" * 16, "zz", "../../etc"):
        assert app.client.get(f"/picture/{wrong}.png").status_code in {404, 403}


def test_a_lake_that_cannot_be_written_to_can_be_browsed(review_lake: Lake, start: Callable[[Lake], App]) -> None:
    # A file where the journal would be: root may write into any folder.
    (Path(review_lake.root) / ".verdicts").write_bytes(b"")
    app = start(review_lake)
    page = app.get("/queue/pairs")
    with pytest.raises(AssertionError, match="cannot be written"):
        app.press(page, "same")
    assert progress(app.get("/queue/pairs"))[0] == 0


def test_a_read_only_folder_disables_the_buttons(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    page = app.get("/queue/pairs")
    assert "This lake cannot be written to." in page
    assert page.count("disabled") >= 4


def test_a_damaged_file_is_named(review_lake: Lake, start: Callable[[Lake], App]) -> None:
    file = next(iter(review_lake.snapshot.file_places("splits")))
    Path(file).write_bytes(Path(file).read_bytes()[:-20])
    app = start(review_lake)
    answer = app.client.get("/queue/pairs?split=main")
    assert answer.status_code == 409
    assert "imagelake verify" in answer.text


def test_a_reload_that_fails_leaves_the_release_open(review_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    review = review_module.Review(review_lake)
    before = dict(vars(review))

    def fail(*_: object) -> None:
        raise DamagedLakeError("a file is damaged")

    monkeypatch.setattr(review_module, "lake_rules", fail)
    with pytest.raises(DamagedLakeError):
        review.reload()
    assert vars(review) == before


def test_a_lake_without_rules_splits_or_labels(tmp_path: Path, start: Callable[[Lake], App]) -> None:
    as_folder(tmp_path / "train", {"1.png": encoded(pictures(1)[0])})
    build(recipe(tmp_path, {"uri": "train"}), engine=LocalEngine(1))
    app = start(Lake(tmp_path / "lake"))
    for address in ("/", "/queue/newest", "/queue/misses", "/rejects", "/precision", "/grid"):
        assert not Page(app.get(address)).open
    assert "Nothing matches." in app.get("/queue/pairs")
    assert app.client.get("/queue/suspects").status_code == 409
    assert app.client.get("/queue/nothing").status_code == 404


def test_verdicts_of_a_picture_that_is_found_by_its_pixels_count(tmp_path: Path, start: Callable[[Lake], App]) -> None:
    app = start(build_review_lake(tmp_path))
    image = app.lake.scan("images").filter(path="A/002.png", split="train").collect().row(0, named=True)
    journal.record(app.lake.root, [journal.Verdict("drop", journal.Picture(image["content_hash"], b"\x01" * 32))])
    again = start(app.lake)
    assert progress(again.get("/queue/newest"))[0] == 1


def test_a_port_that_is_taken_is_explained(review_lake: Lake) -> None:
    import socket  # noqa: PLC0415 - of this test

    from pipeline.review_app.server import serve  # noqa: PLC0415

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(LakeError, match=f"port {port} of 127.0.0.1 cannot be used"):
            serve(review_lake, port=port, ready=print)


def test_without_the_extra_the_command_says_how_to_install_it(
    review_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.errors import MissingExtraError  # noqa: PLC0415
    from pipeline.review_app import server  # noqa: PLC0415

    monkeypatch.setattr(server, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'imagelake\[review\]'"):
        server.serve(review_lake, ready=print)
