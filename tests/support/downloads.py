"""A web server for tests of downloads. It can return errors, redirects and broken responses."""

import gzip
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DATA = b"some bytes" * 1_000


class Server(ThreadingHTTPServer):
    """A server of `files`.

    The statuses in `trouble` are returned first, one for each request. `lies` is added to the length that a response
    declares. Paths in `moved` are redirected. With `pieces`, a response has no length and ends too early.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/a.bin": DATA}
        self.asked: list[str] = []
        self.trouble: list[int] = []
        self.lies = 0
        self.moved: dict[str, str] = {}
        self.pieces = False

    def at(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    """Answers a GET by the settings of its server."""

    server: Server
    protocol_version = "HTTP/1.1"  # has chunked responses
    close_connection = True

    def handle_one_request(self) -> None:
        super().handle_one_request()
        self.close_connection = True

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path in self.server.moved:
            self.send_response(302)
            self.send_header("Location", self.server.moved[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = self.server.files.get(self.path.split("?")[0])
        status = self.server.trouble.pop(0) if self.server.trouble else 200
        self.send_response(404 if data is None else status)
        body = data if data is not None and status == 200 else b""
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        if self.server.pieces:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(f"{len(body):x}\r\n".encode() + body[:-1])
            return
        self.send_header("Content-Length", str(len(body) + self.server.lies))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
