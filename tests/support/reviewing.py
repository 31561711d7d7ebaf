"""Use the review app as a browser does, but in this process."""

import re
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from making import as_folder, encoded, pictures, recipe

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake

if TYPE_CHECKING:
    from starlette.testclient import TestClient

TOKEN, COOKIE, ORIGIN = "secret-token", "imagelake-review-1", "http://127.0.0.1:1"
_FORM = re.compile(r'<form method="post" action="([^"]*)"([^>]*)>(.*?)</form>', re.DOTALL)
_INPUT = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')


# Pairs of two roles by cosine:0.95, and a name that is markup.
PAIRS, EVIL = 60, "<img src=x onerror=alert(1)>"


def build_review_lake(base: Path) -> Lake:
    """Build a lake at `base/lake`: 60 images of train have a noisy copy in test, of which one has another label.

    One image of train is in test with the same label, and one with another label. A path and a label are markup.
    """
    made = pictures(PAIRS + 8)
    noise = np.random.default_rng(5).normal(0, 1, made.shape) * (np.arange(len(made)) % 20 + 1)[:, None, None]
    copies = np.clip(made + noise, 0, 255).astype(np.uint8)
    names = [f"{'AB'[i % 2]}/{i:03d}.png" for i in range(len(made))]
    train = {name: encoded(picture) for name, picture in zip(names, made, strict=True)}
    test = {name: encoded(picture) for name, picture in zip(names[:PAIRS], copies[:PAIRS], strict=True)}
    test["B/000.png"] = test.pop("A/000.png")
    test["A/same-file.png"] = train["A/066.png"]
    test["B/other-label.png"] = train["A/064.png"]
    train[f"{EVIL}/{EVIL}.png"] = encoded(pictures(1, seed=9)[0])
    as_folder(base / "train", {**train, "A/broken.png": b"no image"})
    as_folder(base / "test", test)
    return build_again(base)


def build_again(base: Path) -> Lake:
    """Build the lake from the files as they are now."""
    roles = {"train": {"from": "train"}, "test": {"from": "test"}}
    build(
        recipe(
            base,
            {"uri": "train"},
            {"uri": "test", "split": "test"},
            dedup={"rules": ["exact", "cosine:0.95"]},
            split=[{"name": "main", "seed": 3, "sanitize": "cosine:0.95", **roles}],
            baseline=[{"model": "logistic", "split": "main", "train_sizes": ["all"], "max_iter": 3}],
        ),
        engine=LocalEngine(1),
    )
    return Lake(base / "lake")


class App(NamedTuple):
    """The app with the cookie of its page."""

    client: "TestClient"
    lake: Lake

    def get(self, address: str) -> str:
        """Open a page."""
        answer = self.client.get(address)
        assert answer.status_code == 200, answer.text
        return answer.text

    def post(self, address: str, values: Mapping[str, str]) -> str:
        """Send a form, and follow to the page that it leads to."""
        answer = self.client.post(address, data=dict(values), headers={"Origin": ORIGIN})
        assert answer.status_code == 200, answer.text
        return answer.text

    def press(self, page: str, verdict: str, **values: str) -> str:
        """Press the button of a verdict on a page; the page that follows."""
        for action, _, inside in _FORM.findall(page):
            if f'value="{verdict}"' in inside or (verdict == "undo" and action == "/undo"):
                fields = {unescape(name): unescape(value) for name, value in _INPUT.findall(inside)}
                return self.post(unescape(action), {**fields, "verdict": verdict, **values})
        raise AssertionError(f"no button {verdict} on the page")


def open_app(lake: Lake, who: str = "anna") -> App:
    """Open the app, as with the address that the command prints."""
    pytest.importorskip("starlette", reason="starlette (extra `review`) is not installed")
    from starlette.testclient import TestClient  # noqa: PLC0415 - an extra

    from pipeline.review_app.app import make_app  # noqa: PLC0415 - imports starlette

    client = TestClient(
        make_app(lake, token=TOKEN, cookie=COOKIE, who=who), base_url=ORIGIN, raise_server_exceptions=True
    )
    assert client.get(f"/?token={TOKEN}").status_code == 200
    return App(client, lake)


def progress(page: str) -> tuple[int, int]:
    """Return how many items of a queue are decided, and all of them."""
    found = re.search(r"<span>([\d,]+) of ([\d,]+) decided</span>", page)
    assert found is not None
    done, total = (int(number.replace(",", "")) for number in found.groups())
    return done, total


def shown(page: str) -> list[str]:
    """List the ids of the pictures that a page shows large."""
    return re.findall(r'<div class="frame"><img src="/picture/([0-9a-f]{32})\.png', page)
