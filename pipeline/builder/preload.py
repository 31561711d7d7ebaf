"""What a command needs before the flow itself is imported: its engines by name, and a head start for the workers."""

from pipeline.engines.local import start_server

# The names that `--engine` takes; the first is the usual one. `build.ENGINES` has what they stand for.
ENGINE_NAMES = ("local", "ray")
# What workers import, once for all of them.
PRELOAD = ("pipeline.builder.worker", "imagecodecs._png")


def start_workers(workers: int | None = None) -> None:
    """Start what will start the worker processes: it does its imports while this process does its own.

    Nobody waits for it. Only for builds that have work to do: it holds stdout open until its imports are done.

    Args:
        workers: how many there will be; None for one a core. With one, the work is done in this process.
    """
    start_server(workers, PRELOAD)
