"""Postgres's resource in the environment of a person with other servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from taxi_assets import local
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.defs.resources.postgres_connection import _connect_probe

NOBODY = "127.0.0.9"
"""An address of this machine on which nothing listens."""


def test_variables_of_other_clients_do_not_concern_the_embedded_server(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "PGHOSTADDR": NOBODY,
        "PGOPTIONS": "-c no_such=setting",
        "PGSSLMODE": "verify-full",
        "PGSSLNEGOTIATION": "direct",
        "PGGSSENCMODE": "require",
        "PGCHANNELBINDING": "require",
        "PGTARGETSESSIONATTRS": "standby",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with PostgresResource().connect() as connection, _connect_probe(connection) as probe:
        for each in (connection, probe):
            assert each.execute("SELECT 1").fetchone() == (1,)
    stack = local.ensure_stack_running(home / "taxi")
    named = PostgresResource(
        host=stack.postgres_host,
        port=stack.postgres_port,
        dbname=stack.postgres_dbname,
        user=stack.postgres_user,
        password=stack.postgres_password,
    )
    for name in set(variables) - {"PGHOSTADDR"}:
        monkeypatch.delenv(name)
    with named.connect() as connection:
        assert connection.info.hostaddr == stack.postgres_host
