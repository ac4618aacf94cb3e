"""`python -m taxi_assets`, which is the command `taxi-assets`."""

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run one command; Ctrl-C also ends the second of its imports with one line."""
    try:
        from taxi_assets.cli.app import main as run_command  # noqa: PLC0415 - takes seconds

        return run_command(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
