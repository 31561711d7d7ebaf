"""Faults between an S3 client and its server: what is injected, and what was seen.

`faulty` starts a proxy (`faulty_proxy.py`) as a process of its own, so that no fork of a test holds its connections.
A plan says how often each fault comes:

    error         500, and nothing was passed on
    slow_down     503 SlowDown, and nothing was passed on
    reset         the connection is reset, and nothing was passed on
    reset_upload  reset in the middle of the request's body, of which the server got half (without a body: reset)
    late_error    the request took effect, and the answer is 500
    late_reset    the request took effect, and the connection is reset without an answer
    reset_answer  the request took effect, and the connection is reset in the middle of the answer
    cut_answer    the request took effect, and the answer ends halfway, in good order
    cut_head      the same in the middle of a field of its head, which not every client notices
    delay         the request is passed on `seconds` later
    trickle       the answer comes in ten pieces over `seconds`

Whether a request meets a fault depends on the seed, its method, its address and range, and how often it came before:
not on what else goes on. Of an answer without a body, reset_answer and cut_answer let nothing through.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

Fault = Literal[
    "error",
    "slow_down",
    "reset",
    "reset_upload",
    "late_error",
    "late_reset",
    "reset_answer",
    "cut_answer",
    "cut_head",
    "delay",
    "trickle",
]
FAULTS: tuple[Fault, ...] = get_args(Fault)
# The request took effect, and the client cannot know.
AFTER: tuple[Fault, ...] = ("late_error", "late_reset", "reset_answer", "cut_answer", "cut_head")


@dataclass(frozen=True)
class Plan:
    """Which requests meet which fault.

    Attributes:
        rates: The chance of each fault, 0 to 1; they add up to 1 at most.
        seed: Of the chances.
        methods: Only requests with one of these; empty for all.
        keys: Only requests whose path, with its query, has a match of this pattern.
        in_a_row: At most so many faults in a row for one request, so that retries can succeed; None for no bound.
        at_most: At most so many faults in all; None for no bound.
        seconds: How long `delay` and `trickle` take.
    """

    rates: Mapping[Fault, float] = field(default_factory=dict)
    seed: int = 0
    methods: tuple[str, ...] = ()
    keys: str = ""
    in_a_row: int | None = 2
    at_most: int | None = None
    seconds: float = 0.2


def evenly(rate: float, *faults: Fault, **more: Any) -> Plan:
    """Spread a rate over faults, or over all of them; `more` is what else a plan has."""
    chosen = faults or FAULTS
    return Plan(dict.fromkeys(chosen, rate / len(chosen)), **more)


def always(fault: Fault, **more: Any) -> Plan:
    """Let every request that the plan is for meet a fault; `more` is what else a plan has."""
    return Plan({fault: 1.0}, **{"in_a_row": None, **more})


class Request(NamedTuple):
    """A request that came.

    Attributes:
        fault: What it met, "" for nothing.
        status: What the server answered, 0 if it was not asked or did not answer. The client may have seen another.
    """

    method: str
    path: str
    query: str
    fault: Fault | Literal[""]
    status: int


class Proxy(NamedTuple):
    """A running proxy. What is asked of it here is no request and meets no fault."""

    endpoint: str

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order in which they were done with."""
        return [Request(*row) for row in self._ask("GET", "/-/requests")]

    @property
    def injected(self) -> "Counter[Fault]":
        """How often each fault was injected."""
        return Counter(request.fault for request in self.requests if request.fault)

    def use(self, plan: Plan) -> None:
        """Go on with another plan; counts of faults start anew."""
        self._ask("PUT", "/-/plan", json.dumps(asdict(plan)))

    def quiet(self) -> None:
        """Inject nothing any more."""
        self.use(Plan())

    def forget(self) -> None:
        """Drop the record of requests."""
        self._ask("DELETE", "/-/requests")

    def _ask(self, method: str, path: str, body: str = "") -> Any:
        connection = HTTPConnection(self.endpoint.removeprefix("http://"))
        try:
            connection.request(method, path, body)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def faulty(endpoint: str, plan: Plan | None = None) -> Iterator[Proxy]:
    """Run a proxy before a server.

    Args:
        endpoint: The address of the server.
        plan: What is injected from the start; nothing without one.
    """
    command = [sys.executable, str(Path(__file__).with_name("faulty_proxy.py")), endpoint]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout
            address = server.stdout.readline().decode().strip()
            assert address, "the proxy did not start"
            proxy = Proxy(address)
            proxy.use(plan or Plan())
            yield proxy
        finally:
            server.kill()
