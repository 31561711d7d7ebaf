"""No other page can use the app, and no name of a source becomes markup."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hostile import HARM
from pages import Page
from reviewing import COOKIE, EVIL, ORIGIN, TOKEN, App, shown
from starlette.testclient import TestClient

from pipeline.lake_handle import Lake
from pipeline.review_app.app import make_app
from pipeline.review_app.security import HEADERS
from pipeline.verdicts import journal

ADDRESSES = ["/", "/queue/pairs", "/static/review.js", "/image/00", "/grid", "/precision", "/rejects"]


@pytest.fixture
def stranger(review_lake: Lake) -> TestClient:
    return TestClient(make_app(review_lake, token=TOKEN, cookie=COOKIE), base_url=ORIGIN)


@pytest.mark.parametrize("address", [*ADDRESSES, "/?token=", "/?token=wrong", "/queue/pairs?token=" + TOKEN])
def test_without_the_token_nothing_is_answered(stranger: TestClient, address: str) -> None:
    answer = stranger.get(address)
    assert answer.status_code == 403
    assert "lake" not in answer.text.replace("imagelake", "")
    assert COOKIE not in answer.cookies


def test_the_cookie_is_not_for_scripts_or_other_sites(stranger: TestClient) -> None:
    answer = stranger.get(f"/?token={TOKEN}")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in answer.text
    assert 'url=/"' in answer.text
    assert stranger.get("/").status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:1", "127.0.0.1.evil.example", "localhost.evil", "", "10.0.0.1"]
)
def test_a_name_that_points_here_is_refused(app: App, host: str) -> None:
    assert app.client.get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9000", "[::1]:9"])
def test_a_tunnel_may_use_another_port(app: App, host: str) -> None:
    cookie = {"Host": host, "Cookie": f"{COOKIE}={TOKEN}"}
    assert app.client.get("/", headers=cookie).status_code == 200


@pytest.mark.parametrize("other", ['a={"b": 1, "c": "é"}', "=", "a b=1", "[x]=1", f"{COOKIE}=wrong"])
def test_cookies_of_other_apps_of_this_machine_do_no_harm(stranger: TestClient, other: str) -> None:
    for cookies in (f"{other}; {COOKIE}={TOKEN}", f"{COOKIE}={TOKEN}; {other}"):
        assert stranger.get("/", headers={b"Cookie": cookies.encode()}).status_code == 200
    assert stranger.get("/", headers={b"Cookie": other.encode()}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:2"},
        {"Origin": "https://127.0.0.1:1"},
    ],
    ids=["no origin", "null", "another site", "another port", "another scheme"],
)
@pytest.mark.parametrize("address", ["/decide", "/undo", "/reload"])
def test_another_origin_cannot_post(app: App, address: str, headers: Mapping[str, str]) -> None:
    left, right = shown(app.get("/queue/pairs"))
    form = {"queue": "pairs", "about": "pair", "left": left, "right": right, "verdict": "same"}
    assert app.client.post(address, data=form, headers=dict(headers)).status_code == 403
    assert journal.read_verdicts(app.lake.root).is_empty()


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
def test_another_origin_cannot_even_get(app: App, stranger: TestClient, site: str) -> None:
    headers = {"Sec-Fetch-Site": site}
    for address in ADDRESSES:
        assert app.client.get(address, headers=headers).status_code == 403
        assert app.client.get(address, headers={"Sec-Fetch-Site": "same-origin"}).status_code in {200, 404}
    assert app.client.get("/", headers={"Sec-Fetch-Site": "none"}).status_code == 200
    # A click on the printed address in a mail or a terminal of another page.
    assert stranger.get(f"/?token={TOKEN}", headers=headers).status_code == 200
    assert stranger.get("/?token=wrong", headers=headers).status_code == 403


def test_a_decision_is_no_link(app: App) -> None:
    for address in ("/decide", "/undo", "/reload"):
        assert app.client.get(address).status_code == 405


def test_every_answer_has_the_policy(app: App, stranger: TestClient) -> None:
    picture = f"/picture/{shown(app.get('/queue/pairs'))[0]}.png"
    answers = [app.client.get(address) for address in (*ADDRESSES, picture, "/nothing")] + [stranger.get("/")]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "http" not in policy


def test_hostile_names_stay_text(app: App) -> None:
    hostile = app.lake.scan("images").filter(label=EVIL).select("image_id").collect().item().hex()
    pages = [
        app.get(address)
        for address in (
            "/",
            f"/image/{hostile}",
            "/queue/newest",
            "/queue/pairs",
            "/queue/clusters",
            "/grid?sql=" + "SELECT image_id, label, path FROM images".replace(" ", "+"),
            "/grid?sql=<script>alert(1)</script>",
            f"/queue/newest?label={EVIL}",
        )
    ]
    assert sum("&lt;img src=x" in page for page in pages) >= 4
    for page in pages:
        assert EVIL not in page
        assert "<script>alert" not in page
        parsed = Page(page)
        assert not parsed.open
        assert not [name for _, given in parsed.tags for name in given if name.startswith("on") or name == "style"]
    found = app.client.get(f"/queue/pairs?rule={EVIL}")
    assert found.status_code == 409
    assert EVIL not in found.text


def test_unprintable_names_are_escaped(tmp_path: Path, start: Callable[[Lake], App]) -> None:
    from making import as_folder, files_of, recipe  # noqa: PLC0415 - of this test

    from pipeline.builder.build import build  # noqa: PLC0415
    from pipeline.engines.local import LocalEngine  # noqa: PLC0415

    files = files_of(2)
    as_folder(tmp_path / "train", {"A/\x1b[2J\u202egnp.png": files["A/00000.png"], "B/1.png": files["B/00001.png"]})
    build(recipe(tmp_path, {"uri": "train"}), engine=LocalEngine(1))
    app = start(Lake(tmp_path / "lake"))
    page = app.get("/queue/newest") + app.get("/queue/newest?at=1")
    assert r"\x1b[2J\u202egnp.png" in page
    assert not HARM.search(re.sub(r"\n", "", page))


def test_a_form_has_a_limit(app: App) -> None:
    answer = app.client.post("/decide", data={"note": "x" * 100_000}, headers={"Origin": ORIGIN})
    assert answer.status_code == 413
