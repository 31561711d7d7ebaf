"""Run functions in processes that are forked from one process, which has imported everything.

Starting Python and importing `imagelake` takes 1 to 3 s of CPU time; a fork takes some milliseconds. The server
calls no library; the threads that libraries start when they are imported (jemalloc's, and one of Polars that waits)
hold no lock then, so its forks are safe. Each fork has a process beside it that waits for it.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from select import select
from typing import Any

# What functions and commands import.
PRELOAD = (
    "pipeline.builder.build",
    "pipeline.cli.build",
    "pipeline.export",
    "pipeline.maintenance",
    "pipeline.report",
    "pipeline.verify",
    "sklearn.linear_model",
)


class Forked:
    """A function that runs in its own process.

    Args:
        function: `module:name` of the function. Its module is in `tests/support` or in the package.
        arguments: its arguments, which JSON can hold.
        handles: file descriptors; their numbers in the child come before the arguments.
        stdout: file descriptor; None for no output.
        stderr: file descriptor; None for that of the tests.
        environment: variables to set.
    """

    def __init__(
        self,
        function: str,
        *arguments: object,
        handles: Sequence[int] = (),
        stdout: int | None = None,
        stderr: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        reading, writing = os.pipe()
        nothing = os.open(os.devnull, os.O_WRONLY)
        call = json.dumps([function, arguments, dict(environment or {})], default=str).encode()
        passed = [writing, nothing if stdout is None else stdout, 2 if stderr is None else stderr, *handles]
        socket.send_fds(_server(), [call], passed)
        os.close(writing)
        os.close(nothing)
        self._status = os.fdopen(reading)
        self.pid = int(self._status.readline())

    def kill(self) -> None:
        """Send SIGKILL."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def ended(self) -> bool:
        """Tell whether it has ended."""
        return bool(select([self._status], [], [], 0)[0])

    def wait(self) -> int:
        """Wait until it ends; return its exit code, or the negative signal that ended it."""
        with self._status:
            return int(self._status.readline())


def run_command(words: Sequence[str], *, report: bool = False, patches: Mapping[str, Any] | None = None) -> None:
    """Run a command of imagelake.

    Args:
        words: the words after `imagelake`.
        report: whether a build draws its report.
        patches: values to set, by full name.
    """
    if not report:
        import_module("pipeline.builder.build").write_report = _no_report  # type: ignore[attr-defined] # a stand-in
    for name, value in (patches or {}).items():
        module, _, attribute = name.rpartition(".")
        setattr(import_module(module), attribute, value)
    sys.argv = ["imagelake", *words]
    import_module("pipeline.cli").main()


def start_command(
    *words: object, report: bool = False, patches: Mapping[str, Any] | None = None, **options: Any
) -> Forked:
    """Start a command of imagelake in a process of its own; see `run_command`, and `Forked` for `options`."""
    settings = {"report": report, "patches": dict(patches or {})}
    return Forked("forked:run_command", list(map(str, words)), settings, **options)


def _no_report(lake: Any) -> str:
    return f"{lake.root}/report.html"


@lru_cache(maxsize=1)
def _server() -> socket.socket:
    """Start the server; it ends with the process that started it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        # tqdm reads its settings when it is imported. Without a pause between two drawings of a bar, every one is seen.
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "TQDM_MININTERVAL": "0"},
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(handle: int) -> None:
    for module in PRELOAD:
        import_module(module)
    # The processes that wait for a fork are waited for by nobody.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=handle) as calls:
        while True:
            call, handles, *_ = socket.recv_fds(calls, 2**16, 16)
            if not call:
                return
            if not os.fork():
                calls.close()
                _watch(call, *handles)
                os._exit(0)
            for passed in handles:
                os.close(passed)


def _watch(call: bytes, status: int, *handles: int) -> None:
    """Run a call in a fork; write its process id and its exit code to `status`."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if not child:
        os.close(status)
        os._exit(_exit_code(call, *handles))
    for passed in handles:
        os.close(passed)
    os.write(status, f"{child}\n".encode())
    os.write(status, f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n".encode())


def _exit_code(call: bytes, stdout: int, stderr: int, *handles: int) -> int:
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    for handle in handles:
        os.set_inheritable(handle, False)  # noqa: FBT003 - it takes no names
    function, arguments, environment = json.loads(call)
    os.environ.update(environment)
    module, _, name = function.partition(":")
    options = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
    try:
        getattr(import_module(module), name)(*handles, *arguments, **options)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - as Python does at its end
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    _serve(int(sys.argv[1]))
