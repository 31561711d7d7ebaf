"""Serve moto's S3 on a free port, one request at a time: `python tests/support/locked_moto.py` prints the URL.

Install it with `pip install "moto[s3]" flask flask-cors`. It stops when its standard input is closed.

moto honours `If-None-Match` and `If-Match`, but checks and writes in two steps, and its own command uses many threads.
Here a body is read in the thread of its connection, and a lock is held from the check to the response, so a conditional
PUT is atomic. Truncated bodies are refused (by werkzeug), as S3 does. All credentials are accepted.
"""

import io
import sys
from collections.abc import Iterable
from threading import Lock, Thread
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class Handler(MotoRequestHandler):
    """Keeps connections open and logs nothing."""

    protocol_version = "HTTP/1.1"
    # Otherwise an answer in two writes waits 40 ms for the client's acknowledgement.
    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - the name in werkzeug
        pass


def one_at_a_time(app: "WSGIApplication") -> "WSGIApplication":
    """Start a request only after its body is read and the request before it is answered."""
    lock = Lock()

    def answer(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        # Werkzeug ends the stream of a body in chunks itself.
        size = -1 if environ.get("wsgi.input_terminated") else int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(size))
        with lock:
            return list(app(environ, start))

    return answer


def serve() -> None:
    app = one_at_a_time(create_backend_app("s3"))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.port}", flush=True)  # noqa: T201 - the parent process reads it
    # Stop when the parent process ends, in any way.
    sys.stdin.read()


if __name__ == "__main__":
    serve()
