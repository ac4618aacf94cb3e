"""The BigQuery emulator as a server of the supervisor."""

from __future__ import annotations

import http.client
import os
import signal
import sys
from typing import TYPE_CHECKING

from taxi_assets.local.postgres_folder import Account
from taxi_assets.local.server import Server
from taxi_assets.local.state_directory import LOCAL_HOST, StateDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "bigquery"
# The second signal is safe too: DuckDB replays its log of committed transactions.
STOP = (signal.SIGTERM, signal.SIGKILL)


def build_bigquery_server(
    home: StateDirectory, token: str, register: Callable[[Server], None]
) -> Server:
    """Return the emulator of `home`, not yet spawned."""
    # BQEMU_* variables of the user's own emulator must not configure this one.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("BQEMU_")
    }
    # The token is not an argument, because every user can read those.
    environment["BIGQUERY_TOKEN"] = token
    command = [sys.executable, "-P", "-m", "taxi_assets.local.bigquery_server", home.path]
    return Server(
        NAME,
        home.bigquery_log,
        lambda port: [*command, port],
        environment,
        _is_ready,
        register,
        STOP,
        Account(),
    )


def _is_ready(server: Server) -> bool:
    connection = http.client.HTTPConnection(LOCAL_HOST, server.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()
