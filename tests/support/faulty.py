"""A proxy that injects faults between an S3 client and its server, and records the requests.

`faulty` starts the proxy (`faulty_proxy.py`) in its own process, so that no fork of a test inherits its connections.
A plan sets the rate of each fault:

    error         status 500; the request is not forwarded
    slow_down     status 503 SlowDown; the request is not forwarded
    reset         the connection is reset; the request is not forwarded
    reset_upload  reset in the middle of the request's body; the server got half of it (without a body: as reset)
    late_error    the request took effect, and the response is 500
    late_reset    the request took effect, and the connection is reset without a response
    reset_answer  the request took effect, and the connection is reset in the middle of the response
    cut_answer    the request took effect, and the connection is closed properly after half of the response
    cut_head      the same in the middle of a header field, which some clients do not notice
    delay         the request is forwarded after `seconds`
    trickle       the response is sent in ten pieces over `seconds`

Whether a request gets a fault depends on the seed, its method, its URL and range, and the number of equal requests
before it, but not on other requests. If a response has no body, reset_answer and cut_answer send none of it.
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
# The request took effect, but the client cannot find that out.
AFTER: tuple[Fault, ...] = ("late_error", "late_reset", "reset_answer", "cut_answer", "cut_head")


@dataclass(frozen=True)
class Plan:
    """Which requests get which fault.

    Attributes:
        rates: Probability of each fault, 0 to 1; the sum is at most 1.
        seed: Seed of the random choice.
        methods: Only requests with one of these; empty for all.
        keys: Only requests whose path, with its query, has a match of this pattern.
        in_a_row: Most faults in a row for one request, so that retries can succeed; None for no limit.
        at_most: Most faults in all; None for no limit.
        seconds: Duration of `delay` and `trickle`.
    """

    rates: Mapping[Fault, float] = field(default_factory=dict)
    seed: int = 0
    methods: tuple[str, ...] = ()
    keys: str = ""
    in_a_row: int | None = 2
    at_most: int | None = None
    seconds: float = 0.2


def evenly(rate: float, *faults: Fault, **more: Any) -> Plan:
    """Divide a rate among the given faults, or among all. `more` holds other fields of the plan."""
    chosen = faults or FAULTS
    return Plan(dict.fromkeys(chosen, rate / len(chosen)), **more)


def always(fault: Fault, **more: Any) -> Plan:
    """Inject a fault into every request that matches the plan. `more` holds other fields of the plan."""
    return Plan({fault: 1.0}, **{"in_a_row": None, **more})


class Request(NamedTuple):
    """A request that the proxy received.

    Attributes:
        fault: The injected fault, "" for none.
        status: Status of the server's response, 0 if there was none. The client may have received another one.
    """

    method: str
    path: str
    query: str
    fault: Fault | Literal[""]
    status: int


class Proxy(NamedTuple):
    """A running proxy. Calls of these methods are not recorded and get no faults."""

    endpoint: str

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order in which they finished."""
        return [Request(*row) for row in self._ask("GET", "/-/requests")]

    @property
    def injected(self) -> "Counter[Fault]":
        """The number of injections of each fault."""
        return Counter(request.fault for request in self.requests if request.fault)

    def use(self, plan: Plan) -> None:
        """Replace the plan and reset the counts of faults."""
        self._ask("PUT", "/-/plan", json.dumps(asdict(plan)))

    def quiet(self) -> None:
        """Stop injecting faults."""
        self.use(Plan())

    def forget(self) -> None:
        """Clear the list of requests."""
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
    """Run a proxy in front of a server.

    Args:
        endpoint: URL of the server.
        plan: The first plan; without it no fault is injected.
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
