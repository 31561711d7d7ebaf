"""The proxy of `faulty.py`: `python tests/support/faulty_proxy.py http://SERVER` prints its URL.

It keeps the connections of clients open (HTTP/1.1) and opens one connection to the server for each request. Bodies with
a length, chunked, or signed in chunks are read whole and forwarded unchanged. The proxy itself answers `Expect:
100-continue`.
"""

import json
import re
import socket
import struct
import sys
import time
from collections import Counter
from contextlib import suppress
from io import BufferedIOBase
from random import Random
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Lock, Thread
from typing import Any, NamedTuple

from faulty import AFTER, Fault, Plan, Request

PIECES = 10
REFUSALS = {
    "error": ("500 Internal Server Error", "InternalError", "We encountered an internal error. Please try again."),
    "slow_down": ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
}
REFUSALS["late_error"] = REFUSALS["error"]


class Message(NamedTuple):
    """The bytes of a request or of a response."""

    head: bytes
    body: bytes

    @property
    def first(self) -> list[str]:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    @property
    def fields(self) -> dict[str, str]:
        return fields_of(self.head)


def fields_of(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}


def read_head(stream: BufferedIOBase) -> bytes:
    """Read up to the empty line; nothing if the other side closed the connection."""
    lines = []
    while (line := stream.readline()) not in (b"\r\n", b""):
        lines.append(line)
    if lines and not line:
        raise ConnectionError("the head is cut")
    return b"".join([*lines, line]) if lines else b""


def read_exactly(stream: BufferedIOBase, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ConnectionError("the body is cut")
    return data


def read_body(stream: BufferedIOBase, fields: dict[str, str]) -> bytes:
    """Read a body, with the sizes and trailers of its chunks."""
    if "chunked" not in fields.get("transfer-encoding", "").lower():
        return read_exactly(stream, int(fields.get("content-length", 0)))
    parts = []
    while True:
        parts.append(stream.readline())
        size = int(parts[-1].split(b";")[0], 16)
        if size == 0:
            # Header fields and an empty line may follow the last chunk.
            while parts[-1] not in (b"\r\n", b""):
                parts.append(stream.readline())
            return b"".join(parts)
        parts.append(read_exactly(stream, size + 2))


def reset_on_close(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def upload_half(server: tuple[str, int], request: Message) -> None:
    with socket.create_connection(server) as upstream:
        upstream.sendall(request.head + request.body[: len(request.body) // 2])
        reset_on_close(upstream)


def forward(server: tuple[str, int], request: Message) -> Message:
    """Forward a request to the server and read the response."""
    with socket.create_connection(server) as upstream, upstream.makefile("rb") as stream:
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The server may respond before it has read everything.
        with suppress(OSError):
            upstream.sendall(request.head + request.body)
        while (head := read_head(stream)).split(b" ", 2)[1:2] == [b"100"]:
            pass
        if not head:
            raise ConnectionError("the server gave no answer")
        answer, fields = Message(head, b""), fields_of(head)
        if request.first[0] == "HEAD" or answer.first[1] in ("204", "304"):
            return answer
        framed = "content-length" in fields or "transfer-encoding" in fields
        return Message(head, read_body(stream, fields) if framed else stream.read())


class State:
    """The plan, and counts of requests and faults."""

    def __init__(self) -> None:
        self.lock, self.plan, self.requests = Lock(), Plan(), list[Request]()
        self.came, self.row, self.faults = Counter[str](), Counter[str](), 0

    def use(self, plan: Plan) -> None:
        with self.lock:
            self.plan, self.faults = plan, 0
            self.came, self.row = Counter(), Counter()

    def fault_of(self, request: Message) -> Fault | None:
        """Choose the fault of a request, if any."""
        method, target, _ = request.first
        plan, name = self.plan, f"{method} {target} {request.fields.get('range', '')}"
        if (plan.methods and method not in plan.methods) or not re.search(plan.keys, target):
            return None
        with self.lock:
            self.came[name] += 1
            roll = Random(f"{plan.seed} {name} {self.came[name]}").random()
            bounded = plan.in_a_row is not None and self.row[name] >= plan.in_a_row
            done = plan.at_most is not None and self.faults >= plan.at_most
            for fault, rate in {} if bounded or done else plan.rates.items():
                if roll < rate:
                    self.row[name] += 1
                    self.faults += 1
                    return "reset" if fault == "reset_upload" and not request.body else fault
                roll -= rate
            self.row[name] = 0
            return None

    def control(self, method: str, path: str, body: bytes) -> Any:
        """Handle a request of the test that runs the proxy."""
        if path == "/-/plan":
            self.use(Plan(**json.loads(body)))
        elif method == "DELETE":
            self.requests = []
        else:
            return list(self.requests)
        return None


class Handler(StreamRequestHandler):
    """One connection of a client."""

    server: "FaultyServer"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        try:
            while self.one():
                pass
        except (OSError, ValueError):
            # One side closed its connection early: close the other one too.
            reset_on_close(self.connection)

    def one(self) -> bool:
        """Handle one request; return whether the connection stays open."""
        head = read_head(self.rfile)
        if not head:
            return False
        fields = fields_of(head)
        if "100-continue" in fields.get("expect", "").lower():
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request = Message(head, read_body(self.rfile, fields))
        method, target, _ = request.first
        path, _, query = target.partition("?")
        if path.startswith("/-/"):
            data = json.dumps(self.server.state.control(method, path, request.body)).encode()
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data))
            return True
        fault, status = self.server.state.fault_of(request), 0
        try:
            answer = self.answer(request, fault)
            status = int(answer.first[1]) if answer else 0
        finally:
            self.server.state.requests.append(Request(method, path, query, fault or "", status))
        return self.reply(request, answer, fault)

    def answer(self, request: Message, fault: Fault | None) -> Message | None:
        """Forward the request, if the fault allows it."""
        if fault == "delay":
            time.sleep(self.server.state.plan.seconds)
        if fault == "reset_upload":
            upload_half(self.server.upstream, request)
        asks = fault is None or fault in (*AFTER, "delay", "trickle")
        return forward(self.server.upstream, request) if asks else None

    def reply(self, request: Message, answer: Message | None, fault: Fault | None) -> bool:
        """Send the response, changed by the fault; return whether the connection stays open."""
        if fault in REFUSALS:
            status, code, text = REFUSALS[fault]
            data = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            self.wfile.write(head if request.first[0] == "HEAD" else head + data)
            return True
        if answer is None or fault == "late_reset":
            reset_on_close(self.connection)
            return False
        whole = answer.head + answer.body
        if fault in ("reset_answer", "cut_answer", "cut_head"):
            half = len(answer.head) + len(answer.body) // 2 if answer.body else 0
            self.wfile.write(whole[: len(answer.head) // 2 if fault == "cut_head" else half])
            if fault == "reset_answer":
                reset_on_close(self.connection)
            return False
        step = -(-len(whole) // PIECES) if fault == "trickle" else len(whole)
        for start in range(0, len(whole), step):
            self.wfile.write(whole[start : start + step])
            if fault == "trickle":
                time.sleep(self.server.state.plan.seconds / PIECES)
        framed = not answer.body or {"content-length", "transfer-encoding"} & answer.fields.keys()
        said = (request.fields.get("connection", "") + answer.fields.get("connection", "")).lower()
        return bool(framed) and "close" not in said


class FaultyServer(ThreadingTCPServer):
    """A thread for each connection of a client."""

    daemon_threads, request_queue_size = True, 256

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream, self.state = upstream, State()
        super().__init__(("127.0.0.1", 0), Handler)

    def shutdown_request(self, request: Any) -> None:
        """Close at once. The default sends a proper end of the connection first, but a reset is needed."""
        request.close()


if __name__ == "__main__":
    host, _, port = sys.argv[1].removeprefix("http://").rpartition(":")
    proxy = FaultyServer((host, int(port)))
    Thread(target=proxy.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{proxy.server_address[1]}", flush=True)  # noqa: T201 - the parent process reads it
    # Stop when the parent process ends, in any way.
    sys.stdin.read()
