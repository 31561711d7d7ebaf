"""The command line: `imagelake` and `python -m imagelake`."""

import sys


def main() -> None:
    """Run the `imagelake` command."""
    try:
        from pipeline.import_path import drop_current_folder  # noqa: PLC0415 - `imagelake` must be imported before it

        drop_current_folder()
        from pipeline.cli import main as run  # noqa: PLC0415 - no module may come from the current folder
    except KeyboardInterrupt:
        sys.stderr.write("imagelake: stopped. Nothing was done.\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
