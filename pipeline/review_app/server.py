"""Run the app on 127.0.0.1 until it is stopped."""

import secrets
import socket
from collections.abc import Callable
from importlib.util import find_spec

from pipeline.errors import LakeError, MissingExtraError
from pipeline.lake_handle import Lake

_HOST = "127.0.0.1"
# Seconds for requests that are under way when the app is stopped.
_GRACE_SECONDS = 2


def need_extra() -> None:
    """Check that the libraries of the app are installed, without importing them.

    Raises:
        MissingExtraError: one is not installed.
    """
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"the review app needs {' and '.join(missing)}, which is not installed. Install it with: "
            "pip install 'imagelake[review]'"
        )


def serve(
    lake: Lake, *, who: str | None = None, port: int = 0, token: str | None = None, ready: Callable[[str], None]
) -> None:
    """Serve the app until a signal stops the process.

    Args:
        lake: the lake of a release.
        who: who decides; None for the name of the user.
        port: port on 127.0.0.1; 0 for one that is free.
        token: the token of the address; None for a random one.
        ready: is given the address when it can be opened.

    Raises:
        MissingExtraError: the extra `review` is not installed.
        LakeError: the port is taken.
        DamagedLakeError: a file of the lake is missing or damaged.
    """
    need_extra()
    import pyarrow as pa  # noqa: PLC0415 - slow to import
    import uvicorn  # noqa: PLC0415 - an extra

    from pipeline.review_app.app import make_app  # noqa: PLC0415 - an extra

    # Arrow's own pool keeps what it freed: 50 MB more at 1,000,000 images.
    pa.set_memory_pool(pa.system_memory_pool())
    listening = _listen(port)
    with listening:
        chosen = listening.getsockname()[1]
        secret = token or secrets.token_urlsafe(24)
        app = make_app(lake, token=secret, cookie=f"imagelake-review-{chosen}", who=who)
        ready(f"http://{_HOST}:{chosen}/?token={secret}")
        uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws="none",
                http="h11",
                loop="asyncio",
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        ).run([listening])


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # A port of an app that was stopped can be used again at once.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_HOST, port))
        # From here on a browser waits instead of being refused.
        listening.listen()
    except OSError as error:
        listening.close()
        raise LakeError(
            f"port {port} of {_HOST} cannot be used ({error.strerror}). Name another one with --port, or none for one "
            "that is free."
        ) from error
    return listening
