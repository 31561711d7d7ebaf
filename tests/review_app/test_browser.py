"""The app in a real browser: decide with keys, undo, reload, kill the server, start it again, and nothing is lost."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from reviewing import EVIL, PAIRS, build_again, build_review_lake

from pipeline.checks import run_checks
from pipeline.lake_handle import Lake
from pipeline.recipe import read_checks
from pipeline.verdicts import journal
from pipeline.verdicts.standing import resolve, standing
from pipeline.verify import verify

pytest.importorskip("starlette", reason="starlette (extra `review`) is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUEUE = "/queue/pairs?rule=cosine:0.95&split=main&between=1"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"),
]

Start = Callable[[Lake], tuple[subprocess.Popen[str], str]]


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    with playwright.sync_playwright() as tool:
        opened = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: "Browser") -> "Iterator[Page]":
    """A page that fails the test if a script fails or a policy is violated."""
    context = browser.new_context()
    made = context.new_page()
    problems: list[str] = []
    made.on("pageerror", lambda error: problems.append(str(error)))
    made.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    yield made
    context.close()
    assert [line for line in problems if "ERR_CONNECTION" not in line] == []


@pytest.fixture
def serve() -> Iterator[Start]:
    """Start the command on a lake: the process, and the address that it prints."""
    started = []

    def begin(lake: Lake) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "imagelake", "review", lake.root, "--who", "anna"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        started.append(process)
        assert process.stdout is not None
        address = next((line.strip() for line in process.stdout if line.startswith("http")), None)
        assert address is not None
        return process, address

    yield begin
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def enter(page: "Page", address: str) -> str:
    """Open the address with the token; the address without it."""
    page.goto(address)
    home = re.sub(r"\?.*", "", address)
    page.wait_for_url(home)
    return home.rstrip("/")


def press(page: "Page", key: str, done: int, total: int = PAIRS) -> None:
    """Press a key and wait until so many pairs are decided."""
    page.keyboard.press(key)
    page.get_by_text(f"{done} of {total} decided", exact=True).wait_for()


def test_fifty_pairs_by_keyboard_survive_a_kill(review_lake: Lake, page: "Page", serve: Start) -> None:
    server, address = serve(review_lake)
    home = enter(page, address)
    page.goto(home + QUEUE)
    keys = "sdsnsssdss" * 5
    for number, key in enumerate(keys[:30], start=1):
        press(page, key, number)
    press(page, "u", 29)
    page.reload()
    page.get_by_text(f"29 of {PAIRS} decided").wait_for()
    for number, key in enumerate(keys[29:], start=30):
        press(page, key, number)
    server.send_signal(signal.SIGKILL)
    server.wait()
    assert standing(journal.read_verdicts(review_lake.root)).height == len(keys)

    _, address = serve(review_lake)
    home = enter(page, address)
    page.goto(home + QUEUE)
    page.get_by_text(f"50 of {PAIRS} decided").wait_for()
    press(page, "d", 51)
    rows = journal.read_verdicts(review_lake.root)
    assert rows["verdict_id"].is_unique().all()
    assert rows.filter(verdict="withdrawn").height == 1
    counts = dict(standing(rows)["verdict"].value_counts().rows())
    assert counts == {"same": keys.count("s"), "different": keys.count("d") + 1, "not_sure": keys.count("n")}
    assert rows.filter(verdict="same")["score"].null_count() == 0


@pytest.mark.slow
def test_a_walk_from_a_build_to_a_check(tmp_path: Path, page: "Page", serve: Start) -> None:
    """Build, review 50 pairs, build again: the release follows the verdicts, diff says so, and its check passes."""
    lake = build_review_lake(tmp_path)
    _, address = serve(lake)
    page.goto(enter(page, address) + QUEUE)
    keys = "sdsss" * 10
    for number, key in enumerate(keys, start=1):
        press(page, key, number)
    now = build_again(tmp_path)
    verdicts = now.verdicts()
    assert (len(verdicts.standing), verdicts.waiting, verdicts.gone) == (50, 0, 0)
    decided = resolve(now.snapshot).decided
    members = decided.images.join(
        now.scan("clusters").filter(rule="cosine:0.95").select("image_id", "cluster_id").collect(), on="image_id"
    )
    found = members.group_by("picture").agg("cluster_id")
    of = {picture: set(clusters) for picture, clusters in found.rows()}
    assert len(decided.different) == 10
    assert not [pair for pair in decided.different.rows() if of.get(pair[0], set()) & of.get(pair[1], set())]
    assert all(of[one] & of[other] for one, other in decided.same.rows())
    changes = now.diff(lake.release)
    assert changes.totals["verdicts"] == (0, 50)
    # What is different no longer leaks, so it is no longer dropped.
    assert len(changes.newly_kept) == 10
    checks = tmp_path / "checks.toml"
    checks.write_text('[[check]]\nsplit = "main"\nrule = "cosine:0.95"\noverlap = 0\n[[check]]\ndisagreements = 0\n')
    assert run_checks(now, read_checks(checks)).passed
    assert not [str(fault) for check in verify(now.root) for fault in check.faults]


def test_a_decision_without_a_server_says_so(review_lake: Lake, page: "Page", serve: Start) -> None:
    server, address = serve(review_lake)
    page.goto(enter(page, address) + QUEUE)
    server.kill()
    server.wait()
    said: list[str] = []

    def note(dialog: "Dialog") -> None:
        said.append(dialog.message)
        dialog.accept()

    page.on("dialog", note)
    page.keyboard.press("s")
    page.wait_for_function("!document.querySelector('[aria-busy]')")
    assert "was not recorded" in said[0]
    assert journal.read_verdicts(review_lake.root).is_empty()


@pytest.mark.slow
def test_keys_choose_label_and_move(review_lake: Lake, page: "Page", serve: Start) -> None:
    _, address = serve(review_lake)
    home = enter(page, address)
    page.goto(home + QUEUE)
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**at=1*")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**at=0*")
    page.keyboard.press("2")
    assert page.get_by_role("radio", name="second").is_checked()
    # While a label is entered, keys are letters of the label.
    page.keyboard.press("l")
    page.keyboard.type("sdux")
    page.keyboard.press("Enter")
    page.get_by_text("Recorded: another label.", exact=True).wait_for()
    (row,) = journal.read_verdicts(review_lake.root).rows(named=True)
    assert (row["verdict"], row["label"]) == ("label", "sdux")
    page.keyboard.press("b")
    assert page.locator("[data-pair]").get_attribute("class") is not None
    assert page.locator("figure:visible").count() == 2
    page.keyboard.press("b")
    assert page.locator("figure:visible").count() == 3
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    page.wait_for_url("**/queue/clusters**")


def test_the_pages_are_usable(review_lake: Lake, page: "Page", serve: Start) -> None:
    _, address = serve(review_lake)
    home = enter(page, address)
    evil = review_lake.scan("images").filter(label=EVIL).select("image_id").collect().item().hex()
    for path in (
        "/",
        QUEUE,
        "/queue/clusters?rule=cosine:0.95",
        "/queue/newest",
        f"/image/{evil}",
        "/grid",
        "/precision",
        "/rejects",
    ):
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 844})
            page.goto(home + path)
            page.wait_for_load_state("networkidle")
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{path} is wider than {width} pixels"
        unnamed = page.evaluate(
            """[...document.querySelectorAll("button, a[href], input:not([type=hidden]), select, textarea, img")]
            .filter(one => !(one.textContent.trim() || one.getAttribute("aria-label") || one.alt ||
                             (one.labels && one.labels.length))).map(one => one.outerHTML)"""
        )
        assert unnamed == [], path
        assert page.evaluate("document.querySelectorAll('main img').length") == page.evaluate(
            "[...document.querySelectorAll('main img')].filter(one => one.complete && one.naturalWidth).length"
        ), path


def test_decisions_work_without_scripts(review_lake: Lake, browser: "Browser", serve: Start) -> None:
    _, address = serve(review_lake)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(enter(page, address) + QUEUE)
    page.get_by_role("button", name="Different").click()
    page.get_by_text(f"1 of {PAIRS} decided").wait_for()
    page.get_by_role("button", name="Undo").click()
    page.get_by_text(f"0 of {PAIRS} decided").wait_for()
    context.close()


def test_ctrl_c_stops_the_app(review_lake: Lake, serve: Start) -> None:
    server, _ = serve(review_lake)
    server.send_signal(signal.SIGINT)
    assert server.wait(20) == 0
    assert Path(review_lake.root).is_dir()
