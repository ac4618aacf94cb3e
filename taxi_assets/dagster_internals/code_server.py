"""Dagster's code server: `python -m taxi_assets.dagster_internals.code_server <options>`.

It differs in one thing. The thread that notices dead run processes ended with its first exception:
a run that died while Dagster's Postgres was away stayed STARTED for ever. Here it looks again.
"""

from __future__ import annotations

import sys

from dagster._cli import cli
from dagster._grpc import server


class CodeServer(server.DagsterApiServer):
    """Dagster's code server, whose watch over its runs outlasts an unreachable database."""

    def _check_for_orphaned_runs(self) -> None:
        try:
            super()._check_for_orphaned_runs()
        except Exception:
            self._logger.exception("Cannot look after runs now, trying again")


def main(options: list[str]) -> None:
    """Serve until SIGTERM, then until the runs under way have ended."""
    # `dagster api grpc` takes the class from there.
    server.DagsterApiServer = CodeServer  # type: ignore[misc]
    cli(["api", "grpc", *options], prog_name="dagster")


if __name__ == "__main__":
    main(sys.argv[1:])
