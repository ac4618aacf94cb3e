"""The entry point of the command, which imports the commands themselves only when it runs."""

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run one command; Ctrl-C also ends the seconds of its imports with one line."""
    try:
        from taxi_assets.cli.app import main as run_command

        return run_command(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
