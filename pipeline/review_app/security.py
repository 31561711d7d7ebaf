"""Let no other page and no other user use the app.

- The address that the command prints has a random token. Opened once, it sets a cookie that scripts cannot read and
  that no other site can send (HttpOnly, SameSite=Strict). Every request needs the cookie.
- `Host` must name this machine, so that a name that an attacker points at 127.0.0.1 (DNS rebinding) is refused.
- A request that changes something must come from a page of this very origin, by its header `Origin`: cookies do not
  distinguish the ports of a machine.
- A request that a browser says comes from a page of another origin (`Sec-Fetch-Site`) is refused, also if it changes
  nothing: it would make the app work. Only the address with the token may be opened from elsewhere, such as a mail.
- The content security policy allows files of this origin only, and no script or style inside a page: text that a page
  shows cannot run, even if it were not escaped.
"""

import re
import secrets
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: forms would then send "Origin: null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Not a redirect with a status: a browser that followed a link of another site would not send the cookie to its target.
_ENTER = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>imagelake review</title><link rel="icon" href="data:,">
<meta http-equiv="refresh" content="0;url=/"></head>
<body><p><a href="/">Open the review</a></p></body>
</html>
"""


class Guard:
    """Refuse requests that do not come from the page of the person who started the app.

    Args:
        app: the app.
        token: the token of the address; it is the value of the cookie too.
        cookie: name of the cookie. It has the port in it, because all ports of a machine share their cookies.
    """

    def __init__(self, app: ASGIApp, token: str, cookie: str) -> None:
        self._app, self._token, self._cookie = app, token, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._refusal(scope)
        await (answer or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not _HOST.fullmatch(host):
            return _refuse("This address is not the one that imagelake printed: open that one.", 421)
        changes = scope["method"] not in {"GET", "HEAD"}
        if changes and headers.get("origin") != f"http://{host}":
            return _refuse("A page of another origin cannot change anything here.", 403)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1]
        if scope["path"] == "/" and given and not changes:
            if not self._is_token(given):
                return _refuse("The token is wrong. Open the address that imagelake printed last.", 403)
            answer = HTMLResponse(_ENTER)
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
            return answer
        from_here = headers.get("sec-fetch-site", "none") in {"same-origin", "none"}
        if not from_here or not self._has_cookie(headers):
            return _refuse("Open the address with the token that imagelake printed.", 403)
        return None

    def _has_cookie(self, headers: Headers) -> bool:
        # Not `SimpleCookie`, which stops at the first cookie of another app of this machine that it cannot read.
        pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        return any(name == self._cookie and self._is_token(value) for name, _, value in pairs)

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


def _refuse(why: str, status: int) -> Response:
    return PlainTextResponse(f"{why}\n", status)
