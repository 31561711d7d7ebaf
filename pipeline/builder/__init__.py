"""The incremental build. Start with `build.py`: it calls every step in order.

Every other file is one step: it finds out what is out of date and why, runs a stage, and returns the commits to make.
Only this folder combines stages, engines and the lake. This module has what a command needs before it imports the rest:
the names of the engines, and an early start of the workers.
"""

from pipeline.engines.local import start_server

# The values of the option `--engine`, the default first. `build.ENGINES` has the engine of each name.
ENGINE_NAMES = ("local", "ray")
# The modules that the fork server imports once for all workers.
PRELOAD = ("pipeline.builder.worker", "pyarrow.compute", "imagecodecs._png")


def start_workers(workers: int | None = None) -> None:
    """Start the fork server of the worker processes, so that its imports run in parallel with those of this process.

    Returns at once. Call this only before a build that has work to do: the fork server keeps stdout open until its
    imports are done.

    Args:
        workers: number of worker processes; None for one per core. With one, this process does all work and no server
            is started.
    """
    start_server(workers, PRELOAD)
