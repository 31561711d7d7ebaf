"""The command line: `imagelake` and `python -m imagelake`."""


def main() -> None:
    """Run the `imagelake` command."""
    from pipeline.cli import main as run  # noqa: PLC0415 - `imagelake` must be imported before it

    run()


if __name__ == "__main__":
    main()
