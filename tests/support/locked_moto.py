"""Serve moto's S3 on a free port, one request at a time: `python tests/support/locked_moto.py` prints the address.

To have it: `pip install "moto[s3]" flask flask-cors`. It ends when its input does.

moto honours `If-None-Match` and `If-Match`, but looks first and puts then, and its own command answers in many threads.
Here a body is read in the thread of its connection, and a lock is held from the look to the answer: a conditional PUT
is atomic. Bodies cut short are refused (werkzeug does that), as S3 does. It knows no wrong credentials.
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
    """Keeps connections open, and logs nothing."""

    protocol_version = "HTTP/1.1"
    # Otherwise an answer in two writes waits 40 ms for the client's acknowledgement.
    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - the name it has in werkzeug
        pass


def one_at_a_time(app: "WSGIApplication") -> "WSGIApplication":
    """Let a request in only when it is read, and when the one before is answered."""
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
    print(f"http://127.0.0.1:{server.port}", flush=True)  # noqa: T201 - whoever started it reads it
    # It ends with whoever started it, however that ended.
    sys.stdin.read()


if __name__ == "__main__":
    serve()
