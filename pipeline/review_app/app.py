"""The pages of the app, and what they do."""

import threading
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from pipeline.errors import ImagelakeError
from pipeline.lake_handle import Lake
from pipeline.review_app.pages import STATIC, render
from pipeline.review_app.pictures import LARGE, SMALL, encode_png
from pipeline.review_app.queues import Filters
from pipeline.review_app.review import Decision, Review
from pipeline.review_app.security import Guard

# The largest form: a decision with a long label and note.
_FORM_BYTES = 2**16
# What a decision was, in the message after it.
_SAID = {
    "same": "the same",
    "different": "different",
    "keep": "keep",
    "drop": "drop",
    "label": "another label",
    "wrong_label": "wrong label",
    "not_sure": "not sure",
    "undone": "taken back",
    "nothing": "nothing to take back",
}
Handler = Callable[["Review", Mapping[str, str]], Response]


def make_app(lake: Lake, *, token: str, cookie: str, who: str | None = None) -> Starlette:
    """Make the app.

    Args:
        lake: the lake of a release.
        token: what a browser must send; see `security`.
        cookie: name of the cookie with the token.
        who: who decides; None for the name of the user.

    Raises:
        DamagedLakeError: a file of the lake is missing or damaged.
    """
    review = Review(lake, who)
    # Not a daemon: a process that ends while a thread is inside of Arrow may crash.
    threading.Thread(target=review.read_ahead).start()
    # Pages are made one after the other: there is one person. Pictures are not.
    lock = threading.Lock()

    def page(handler: Handler) -> Callable[[Request], Any]:
        @wraps(handler)
        async def answer(request: Request) -> Response:
            if request.method == "POST":
                text = (await request.body()).decode("utf-8", "replace")
                values = dict(parse_qsl(text, keep_blank_values=True))
            else:
                values = {**request.query_params, **request.path_params}

            def locked() -> Response:
                with lock:
                    try:
                        return handler(review, values)
                    except ImagelakeError as error:
                        return _message(review, "That did not work", str(error), 409, _address(review, values))

            return await run_in_threadpool(locked)

        return answer

    def picture(request: Request) -> Response:
        """Send an image as PNG."""
        # A reload meanwhile replaces the images of the review.
        images = review.images
        number = images.number(request.path_params["image_id"])
        if number < 0:
            raise HTTPException(404)
        side = SMALL if request.query_params.get("side") == "small" else LARGE
        (row,) = images.rows([number])
        # The address has the release, and an image of a release never changes.
        return Response(
            encode_png(row, side),
            media_type="image/png",
            headers={"Cache-Control": "private, max-age=86400, immutable"},
        )

    return Starlette(
        routes=[
            Route("/", page(_home)),
            Route("/queue/{name}", page(_queue)),
            Route("/decide", page(_decide), methods=["POST"]),
            Route("/undo", page(_undo), methods=["POST"]),
            Route("/reload", page(_reload), methods=["POST"]),
            Route("/image/{image_id}", page(_image)),
            Route("/picture/{image_id}.png", picture),
            Route("/grid", page(_grid)),
            Route("/rejects", page(_rejects)),
            Route("/precision", page(_precision)),
            Route("/static/{name}", _static),
        ],
        middleware=[Middleware(Guard, token=token, cookie=cookie)],
        exception_handlers={404: _not_found, ImagelakeError: _failed},
        max_body_size=_FORM_BYTES,
    )


def _page(review: Review, template: str, values: Mapping[str, Any], status: int = 200) -> Response:
    return HTMLResponse(render(template, {**review.frame(), **values}), status)


def _message(review: Review, title: str, text: str, status: int, back: str = "/") -> Response:
    return _page(review, "message.html.j2", {"title": title, "text": text, "back": back}, status)


def _home(review: Review, _: Mapping[str, str]) -> Response:
    return _page(review, "home.html.j2", review.overview())


def _queue(review: Review, values: Mapping[str, str]) -> Response:
    found = review.item(values["name"], values)
    if found is None:
        raise HTTPException(404)
    said = _SAID.get(values.get("said", ""))
    return _page(review, "queue.html.j2", {**found, "said": said, "said_key": values.get("said")})


def _decide(review: Review, values: Mapping[str, str]) -> Response:
    number = values.get("at", "")
    decision = Decision(
        verdict=values.get("verdict", ""),
        about=values.get("about", ""),
        left=values.get("left", ""),
        right=values.get("right", ""),
        label=values.get("right_label") or None,
        note=values.get("note") or None,
        score=values.get("score", ""),
    )
    at = review.decide(values.get("queue", ""), values, decision, int(number) if number.isdecimal() else 0)
    return _back(review, values, at, decision.verdict)


def _undo(review: Review, values: Mapping[str, str]) -> Response:
    count, at = review.undo(values.get("queue", ""), values)
    return _back(review, values, at, "undone" if count else "nothing")


def _back(review: Review, values: Mapping[str, str], at: int | None, said: str) -> Response:
    """Return to the page where a decision was made, at another item of its queue."""
    shown = {name: value for name, value in values.items() if name != "at"} | ({} if at is None else {"at": str(at)})
    return RedirectResponse(_address(review, shown, said), 303)


def _address(review: Review, values: Mapping[str, str], said: str | None = None) -> str:
    """Return the address of the page with a form, given its values: an item of a queue, or an image."""
    name = values.get("queue", "")
    after = {} if said is None else {"said": said}
    if name in review.titles:
        kept = {key: values[key] for key in (*Filters._fields, "at") if values.get(key)}
        return f"/queue/{name}?{urlencode({**kept, **after})}"
    number = review.images.number(values.get("left", ""))
    return "/" if number < 0 else f"/image/{review.images.id_of(number)}?{urlencode(after)}"


def _reload(review: Review, _: Mapping[str, str]) -> Response:
    review.reload()
    return RedirectResponse("/", 303)


def _image(review: Review, values: Mapping[str, str]) -> Response:
    number = review.images.number(values["image_id"])
    if number < 0:
        return _message(review, "No such image", f"Release {review.lake.release} has no image with this id.", 404)
    return _page(
        review, "image.html.j2", {**review.image(number), "said": _SAID.get(values.get("said", "")), "said_key": None}
    )


def _grid(review: Review, values: Mapping[str, str]) -> Response:
    return _page(review, "grid.html.j2", review.grid(values.get("sql", ""), _page_number(values)))


def _rejects(review: Review, values: Mapping[str, str]) -> Response:
    return _page(
        review,
        "rejects.html.j2",
        review.rejects(values.get("reason") or None, values.get("dataset") or None, _page_number(values)),
    )


def _precision(review: Review, values: Mapping[str, str]) -> Response:
    return _page(review, "precision.html.j2", review.precision(values.get("rule") or None, values.get("target", "")))


def _page_number(values: Mapping[str, str]) -> int:
    text = values.get("page", "")
    return int(text) if text.isdecimal() and len(text) < 7 else 0  # noqa: PLR2004 - a page that no lake has


def _static(request: Request) -> Response:
    files = {file.name: file for file in STATIC.iterdir()}
    name = request.path_params["name"]
    if name not in files:
        raise HTTPException(404)
    kinds = {".css": "text/css", ".js": "text/javascript"}
    return FileResponse(files[name], media_type=kinds[files[name].suffix])


def _not_found(_: Request, __: Exception) -> Response:
    return HTMLResponse(
        '<!DOCTYPE html><title>Not found</title><p>There is no such page. <a href="/">Overview</a></p>', 404
    )


def _failed(_: Request, error: Exception) -> Response:
    return Response(f"{error}\n", 409, media_type="text/plain; charset=utf-8")
