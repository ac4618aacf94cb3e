"""`sql_query` on the real Postgres and the BigQuery emulator, and every attempt to write."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from bqemulator.scripting.ast import SqlStmt
from bqemulator.scripting.parser import parse_script
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.bigquery import QueryJobConfig
from hypothesis import given, settings
from hypothesis.strategies import text
from pydantic import ValidationError
from sqlglot.errors import SqlglotError

from taxi_assets.defs.jobs.one_select import format_for_bigquery, parse_one_select
from taxi_assets.defs.jobs.sql_query import (
    READ_ONLY,
    SqlQueryConfig,
    query_bigquery,
    query_postgres,
)
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.errors import StoreError
from taxi_assets.local.process import wait_until
from taxi_assets_tests import stores
from taxi_assets_tests.defs.jobs.jobs import (
    read_records,
    run_and_read_failure,
    run_and_read_metadata,
)
from taxi_assets_tests.defs.jobs.test_daily import DAGSTER

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def zones_table(home: Path) -> Iterator[None]:
    """Make a table of three rows and a sequence in Postgres, and the same table in BigQuery."""
    client = stores.bigquery()
    client.delete_dataset("kept", delete_contents=True, not_found_ok=True)
    client.create_dataset("kept")
    client.query("CREATE TABLE kept.zones (id INT64, name STRING)").result()
    client.query("INSERT INTO kept.zones VALUES (1, 'EWR'), (2, 'JFK'), (3, NULL)").result()
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS kept CASCADE")
        cursor.execute("CREATE SCHEMA kept")
        cursor.execute("CREATE TABLE kept.zones (id bigint, name text)")
        cursor.execute("INSERT INTO kept.zones VALUES (1, 'EWR'), (2, 'JFK'), (3, NULL)")
        cursor.execute("CREATE SEQUENCE kept.numbers")
        yield
        cursor.execute("DROP SCHEMA kept CASCADE")
    client.delete_dataset("kept", delete_contents=True)


@pytest.mark.parametrize("store", ["postgres", "bigquery"])
def test_first_rows_are_a_table_in_the_run(store: str, zones_table: None) -> None:
    query = "SELECT id, name, id * 1.5 AS half FROM kept.zones ORDER BY id;"
    metadata = run_and_read_metadata("sql_query", query=query, store=store, rows=2)
    rows = read_records(metadata["result"])
    assert [(row["id"], row["name"]) for row in rows] == [(1, "EWR"), (2, "JFK")]
    assert float(rows[0]["half"]) == 1.5
    assert [column.name for column in metadata["result"].schema.columns] == ["id", "name", "half"]
    assert (metadata["rows"], metadata["more_rows"]) == (2, True)
    metadata = run_and_read_metadata("sql_query", query=query, store=store, rows=3)
    assert read_records(metadata["result"])[2]["name"] == "null"
    assert (metadata["rows"], metadata["more_rows"]) == (3, False)


@pytest.mark.parametrize(
    "query",
    [
        "WITH x AS (SELECT 1 AS id) SELECT * FROM x",
        "SELECT id FROM kept.zones WHERE id = 1 UNION ALL SELECT 7 WHERE 1 = 0 -- one",
        "SELECT 1 AS id, 'DELETE FROM kept.zones; COMMIT' AS text",
    ],
)
@pytest.mark.parametrize("store", ["postgres", "bigquery"])
def test_single_select_is_accepted(query: str, store: str, zones_table: None) -> None:
    assert (
        read_records(run_and_read_metadata("sql_query", query=query, store=store)["result"])[0][
            "id"
        ]
        == 1
    )


def test_values_of_every_type_are_shown(zones_table: None) -> None:
    query = (
        "SELECT 1::bigint << 60 AS large, true AS yes, 1.25::numeric AS exact, 'x'::bytea AS bytes,"
        " timestamp '2021-01-05 08:00' AS time, ARRAY[1, 2] AS list, '{\"a\": 1}'::jsonb AS json,"
        " repeat('y', 300) AS long, 1 AS same, 2 AS same"
    )
    (row,) = read_records(run_and_read_metadata("sql_query", query=query)["result"])
    assert row == {
        "large": "1152921504606846976",
        "yes": True,
        "exact": "1.25",
        "bytes": "0x78",
        "time": "2021-01-05 08:00:00",
        "list": "{1,2}",
        "json": '{"a": 1}',
        "long": "y" * 200 + "...",
        "same": 1,
        "same (2)": 2,
    }
    query = "SELECT row(1, 2) AS row, 'infinity'::timestamp AS time, NULL::int[] AS list"
    (row,) = read_records(run_and_read_metadata("sql_query", query=query)["result"])
    assert row == {"row": "(1,2)", "time": "infinity", "list": "null"}


def test_result_without_rows_is_a_table(zones_table: None) -> None:
    metadata = run_and_read_metadata(
        "sql_query", query="SELECT id, name FROM kept.zones WHERE false"
    )
    assert read_records(metadata["result"]) == []
    assert metadata["rows"] == 0


WRITES = {
    "DELETE FROM kept.zones": "sql_query runs one SELECT: DELETE is rejected",
    "  delete from kept.zones": "DELETE is rejected",
    "UPDATE kept.zones SET id = 0": "UPDATE is rejected",
    "DROP TABLE kept.zones": "DROP is rejected",
    "SELECT 1; DROP TABLE kept.zones": "these are 2 statements",
    "SELECT 1; COMMIT; DROP TABLE kept.zones": "these are 3 statements",
    "BEGIN; DELETE FROM kept.zones; COMMIT": "these are 3 statements",
    "CREATE TABLE kept.more AS SELECT 1 AS id": "CREATE is rejected",
    "": "these are 0 statements",
    "-- nothing": "these are 0 statements",
}
POSTGRES_WRITES = {
    "WITH x AS (DELETE FROM kept.zones RETURNING id) SELECT * FROM x": "DELETE is rejected",
    "SELECT setval('kept.numbers', 7)": "permission denied for sequence numbers",
    "SELECT nextval('kept.numbers')": "permission denied for sequence numbers",
    "COPY kept.zones TO PROGRAM 'touch planted'": "COPY is rejected",
    "SELECT id INTO kept.more FROM kept.zones": "SELECT ... INTO is not allowed here",
    "SELECT * FROM kept.zones FOR UPDATE": "cannot execute SELECT FOR UPDATE in a read-only",
    "SELECT set_config('transaction_read_only', 'off', true)": "must be set before any query",
    "SELECT set_config('role', 'taxi', true)": 'permission denied to set role "taxi"',
    "SELECT query_to_xml($$SELECT set_config('role', 'taxi', true)$$, true, true, '')": (
        'permission denied to set role "taxi"'
    ),
    "SELECT set_config('session_authorization', 'taxi', true)": "permission denied to set session",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'taxi'": (
        "permission denied to terminate process"
    ),
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'taxi'": (
        "permission denied to cancel query"
    ),
    "SELECT pg_advisory_lock(1)": "permission denied for function pg_advisory_lock",
    "SELECT pg_try_advisory_xact_lock(1)": "permission denied for function pg_try_advisory",
    "SELECT pg_read_binary_file('/etc/passwd')": "permission denied for function pg_read_binary",
    "SELECT pg_ls_dir('.')": "permission denied for function pg_ls_dir",
    "SELECT lo_import('/etc/passwd')": "permission denied for function lo_import",
    "SELECT lo_from_bytea(0, 'x')": "permission denied for function lo_from_bytea",
    "SELECT * FROM pg_authid": "permission denied for table pg_authid",
    "SELECT lo_create(0)": "permission denied for function lo_create",
    "SELECT lo_export(1, 'planted')": "permission denied for function lo_export",
    "SELECT pg_read_file('postgresql.conf')": "permission denied for function pg_read_file",
    "SELECT pg_reload_conf()": "permission denied for function pg_reload_conf",
    "SELECT query_to_xml('DELETE FROM kept.zones', true, true, '')": "DELETE is not allowed in a",
    "VACUUM kept.zones": "VACUUM is rejected",
    "SELECT 1 FROM kept.zones WHERE id = $1": "bind message supplies 0 parameters",
}
BIGQUERY_WRITES = {
    "EXPORT DATA OPTIONS(uri='gs://x/*.csv', format='CSV') AS SELECT 1": "EXPORT is rejected",
    "DECLARE x INT64; SELECT 1": "these are 2 statements",
    "SELECT 1; DROP TABLE kept.zones; SELECT (": "cannot be read as one",
    "CALL kept.procedure()": "CALL is rejected",
    "SELECT 1 INTO kept.more": "INTO is rejected",
    "EXECUTE IMMEDIATE 'DROP TABLE kept.zones'": "EXECUTE is rejected",
    "SELECT 1 -- x\r; DROP TABLE kept.zones": "these are 2 statements",
    "SELECT 1 # x\r; DROP TABLE kept.zones": "these are 2 statements",
    "SELECT 1 /* /* */; DROP TABLE kept.zones -- */": "these are 2 statements",
    "SELECT $$ ; DROP TABLE kept.zones; SELECT $$": "these are 3 statements",
    "SELECT $$a$$": "cannot be read as one",
    # sqlglot takes Jinja's comments and blocks for gaps.
    "SELECT 1 {#\n; DROP TABLE kept.zones; --#}": "cannot be read as one",
    "SELECT 1 {% ; DROP TABLE kept.zones; %}": "cannot be read as one",
    "SELECT 1 -- \u2028; DROP TABLE kept.zones": "ran",
    "SELECT 1 -- \x0b; DROP TABLE kept.zones": "ran",
    "SELECT 1 -- \x85; DROP TABLE kept.zones": "ran",
    "SELECT 1 -- \0; DROP TABLE kept.zones": "ran",
    "SELECT 1\u2028; DROP TABLE kept.zones": "these are 2 statements",
    "SELECT r'\\'; DROP TABLE kept.zones; -- '": "ran",
    'SELECT "\'; DROP TABLE kept.zones; --"': "ran",
    "SELECT '''a' ; DROP TABLE kept.zones; --'''": "ran",
    "SELECT 'a\r; DROP TABLE kept.zones; --'": "spans lines",
    "SELECT 1 AS `a\\`; DROP TABLE kept.zones; --`": "these are 2 statements",
    "SELECT 'open; DROP TABLE kept.zones": "cannot be read as one",
    "SELECT 1 /* open; DROP TABLE kept.zones": "cannot be read as one",
}
SERVER_WRITES = (
    "SELECT 1; DROP TABLE kept.zones",
    "SELECT 1 -- x\r; DROP TABLE kept.zones",
    "SELECT r'\\'; DROP TABLE kept.zones; -- '",
    "DROP TABLE kept.zones",
    "DELETE FROM kept.zones WHERE TRUE",
    "INSERT INTO kept.zones VALUES (4, 'LGA')",
    "CREATE TABLE kept.more AS SELECT 1 AS id",
    "CREATE FUNCTION kept.f() AS (1)",
    "EXPORT DATA OPTIONS(uri='gs://exported/*.csv', format='CSV') AS SELECT 1",
    "BEGIN DELETE FROM kept.zones WHERE TRUE; END",
    "EXECUTE IMMEDIATE 'DROP TABLE kept.zones'",
    "CREATE SNAPSHOT TABLE kept.more CLONE kept.zones",
)


def assert_unchanged() -> None:
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*), sum(id)::bigint FROM kept.zones")
        assert cursor.fetchone() == (3, 6)
        cursor.execute("SELECT is_called FROM kept.numbers")
        assert cursor.fetchone() == (False,)
        cursor.execute("SELECT to_regclass('kept.more') IS NULL")
        assert cursor.fetchone() == (True,)
    client = stores.bigquery()
    (row,) = client.query("SELECT COUNT(*), SUM(id) FROM kept.zones").result()
    assert tuple(row) == (3, 6)
    assert [table.table_id for table in client.list_tables("kept")] == ["zones"]


def run_and_read_rejection(store: str, query: str, *, check_statement: bool = True) -> str:
    """Return why a query is rejected, with or without the check of its statement."""
    config = SqlQueryConfig(query=query, store=store)
    try:
        if store == "postgres":
            if check_statement:
                with suppress(SqlglotError):
                    parse_one_select(query, store)
            query_postgres(PostgresResource(), config)
        else:
            query_bigquery(BigQueryResource(), config)
    except StoreError as error:
        return str(error)
    return f"{query} ran"


@pytest.mark.parametrize(
    ("store", "more"), [("postgres", POSTGRES_WRITES), ("bigquery", BIGQUERY_WRITES)]
)
def test_writing_statements_are_rejected(
    store: str, more: dict[str, str], zones_table: None
) -> None:
    expected = {**WRITES, **more}
    messages = {query: run_and_read_rejection(store, query) for query in expected}
    assert {
        query: message for query, message in messages.items() if expected[query] not in message
    } == {}
    assert_unchanged()


def test_postgres_rejects_writes_without_the_statement_check(zones_table: None) -> None:
    for query in {**WRITES, **POSTGRES_WRITES}:
        assert run_and_read_rejection("postgres", query, check_statement=False).startswith(
            "Postgres: "
        ), query
    assert_unchanged()


@pytest.mark.parametrize("dry_run", [False, True])
def test_read_only_job_of_the_emulator_can_only_read(dry_run: bool, zones_table: None) -> None:
    """It can do so without the check of the statement, which may parse differently."""
    client = stores.bigquery()

    def result(query: str) -> list[tuple[object, ...]]:
        config = QueryJobConfig(labels=READ_ONLY, dry_run=dry_run)
        job = client.query(query, job_config=config, retry=None, job_retry=None)
        return [tuple(row) for row in job.result(retry=None, timeout=120)]

    statements_run = []
    for query in SERVER_WRITES:
        with suppress(GoogleAPICallError):
            result(query)
            statements_run.append(query)
    # A dry run may describe them. For the emulator's lexer a \\r does not end the comment.
    assert dry_run or statements_run == [SERVER_WRITES[1]]
    assert_unchanged()
    assert not (stores.stack().lake_root / "exported").exists()
    for query in ("SELECT 3", "SELECT COUNT(*) FROM kept.zones UNION ALL SELECT 3"):
        assert dry_run or set(result(query)) == {(3,)}
    # The next job of the connection may write again.
    client.query("CREATE TABLE kept.more AS SELECT 1 AS id").result()
    client.query("DROP TABLE kept.more").result()


STRINGS = {
    "'it''s'": None,
    "r'\\d+'": "\\d+",
    "'a\\'b'": "a'b",
    '"a\'b"': "a'b",
    '"""a "quoted" word"""': 'a "quoted" word',
    "'''two\nlines'''": "two\nlines",
    "'''two\r\nlines'''": "two\nlines",
    "r'''it's \\n'''": "it's \\n",
    "'é ü 漢 🚕'": "é ü 漢 🚕",
    "'-- no comment # nor /* this */'": "-- no comment # nor /* this */",
    "''": "",
}


def test_string_literals_arrive_unchanged(zones_table: None) -> None:
    for literal, value in STRINGS.items():
        metadata = run_and_read_metadata(
            "sql_query", query=f"SELECT {literal} AS text", store="bigquery"
        )
        if value is not None:
            assert read_records(metadata["result"]) == [{"text": value}], literal


@given(text(alphabet="ab'\"`\\\n\r;-#/*rR \u2028\x0b\0$", max_size=24))
@settings(max_examples=400, deadline=None)
def test_sent_sql_is_one_statement_for_the_emulators_parser(tail: str) -> None:
    with suppress(StoreError):
        sql = format_for_bigquery(f"SELECT {tail}")
        (statement,) = parse_script(sql).statements
        assert isinstance(statement, SqlStmt)
        assert not sql.count("\n")


def test_rejection_is_one_line_in_the_run(zones_table: None) -> None:
    message = run_and_read_failure("sql_query", query="DELETE FROM kept.zones")
    assert message == "sql_query runs one SELECT: DELETE is rejected"


def test_query_cannot_end_a_load(zones_table: None) -> None:
    """A load's connection belongs to the loader, and the reader may neither end nor block it."""
    with PostgresResource().connect() as loading:
        loading.execute("SELECT count(*) FROM kept.zones")
        message = run_and_read_rejection(
            "postgres", f"SELECT pg_terminate_backend({loading.info.backend_pid})"
        )
        assert "permission denied to terminate process" in message
        loading.execute("SELECT count(*) FROM kept.zones")


EXTRA_RIGHTS = {
    "ALTER ROLE reader SUPERUSER": "has a role attribute such as SUPERUSER",
    "GRANT pg_signal_backend TO reader": "is a member of pg_signal_backend",
    "GRANT INSERT ON kept.zones TO reader": "may write to kept.zones",
    "GRANT CREATE ON DATABASE ny_taxi TO reader": "may create schemas",
}


@pytest.fixture
def foreign(home: Path, zones_table: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use a server that is not the embedded one, with a reader created by hand."""
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE ROLE reader LOGIN PASSWORD 'planted-secret'")
        try:
            cursor.execute("GRANT USAGE ON SCHEMA kept TO reader")
            cursor.execute("GRANT SELECT ON kept.zones TO reader")
            reader = {
                "POSTGRES_READER_USER": "reader",
                "POSTGRES_READER_PASSWORD": "planted-secret",
            }
            for name, value in (stores.settings() | reader).items():
                monkeypatch.setenv(name, value)
            yield
        finally:
            cursor.execute("DROP OWNED BY reader")
            cursor.execute("DROP ROLE reader")


@pytest.mark.usefixtures("foreign")
def test_reader_created_by_hand_reads_its_tables() -> None:
    query = "SELECT count(*) AS zones, current_user::text AS me FROM kept.zones"
    assert read_records(run_and_read_metadata("sql_query", query=query)["result"]) == [
        {"zones": 3, "me": "reader"}
    ]
    assert "permission denied" in run_and_read_failure(
        "sql_query", query="SELECT last_value FROM kept.numbers"
    )
    assert_unchanged()


@pytest.mark.usefixtures("foreign")
@pytest.mark.parametrize("statement", EXTRA_RIGHTS)
def test_reader_with_more_rights_is_rejected(statement: str) -> None:
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(statement)
    message = run_and_read_failure("sql_query", query="SELECT 1")
    assert f"POSTGRES_READER_USER 'reader' {EXTRA_RIGHTS[statement]}" in message


@pytest.mark.usefixtures("foreign")
def test_missing_reader_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POSTGRES_READER_USER", "POSTGRES_READER_PASSWORD"):
        monkeypatch.delenv(name)
    assert "set POSTGRES_READER_USER and POSTGRES_READER_PASSWORD" in run_and_read_failure(
        "sql_query", query="SELECT 1"
    )


@pytest.mark.parametrize(
    ("store", "query", "expected"),
    [
        ("postgres", "SELECT nothing FROM kept.zones", 'Postgres: column "nothing" does not exist'),
        ("postgres", "SELECT * FROM kept.none", 'Postgres: relation "kept.none" does not exist'),
        ("postgres", "SELEC 1", 'Postgres: syntax error at or near "SELEC"'),
        ("postgres", "SELECT 1 / 0", "Postgres: division by zero"),
        ("bigquery", "SELECT * FROM kept.none", "BigQuery: Not found: Table taxi-local.kept.none"),
        ("bigquery", "SELEC 1", "sql_query runs one SELECT, and this cannot be read as one: Inv"),
    ],
)
def test_invalid_sql_shows_the_servers_message(
    store: str, query: str, expected: str, zones_table: None
) -> None:
    assert run_and_read_rejection(store, query).startswith(expected)


def test_query_is_not_truncated_at_a_nul(zones_table: None) -> None:
    message = run_and_read_rejection("postgres", "SELECT id FROM kept.zones \0 WHERE id = 1")
    assert message == "sql_query runs one SELECT: character 27 of it is NUL"


SLOW = {
    "postgres": "SELECT pg_sleep(60)",
    "bigquery": "SELECT COUNT(*) FROM UNNEST(GENERATE_ARRAY(1, 20000)) AS x"
    " JOIN UNNEST(GENERATE_ARRAY(1, 20000)) AS y ON MOD(x * y, 7) = 3",
}


@pytest.mark.parametrize("store", SLOW)
def test_slow_query_is_stopped(store: str, zones_table: None) -> None:
    started = time.monotonic()
    message = run_and_read_failure("sql_query", query=SLOW[store], store=store, timeout_seconds=1)
    assert message == "the query was stopped after 1 s: narrow it, or raise timeout_seconds"
    assert time.monotonic() - started < 30
    assert wait_until(lambda: count_sleeping_sessions() == 0, 20)


def count_sleeping_sessions() -> int:
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'taxi_assets' AND query LIKE '%pg_sleep(60)%'"
        )
        return int(cursor.fetchone()[0])


def test_huge_result_is_not_loaded(zones_table: None) -> None:
    query = (
        "WITH RECURSIVE endless(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM endless)"
        " SELECT id, repeat('x', 10000) AS filling FROM endless"
    )
    process = psutil.Process()
    memory_before = process.memory_info().rss
    metadata = run_and_read_metadata("sql_query", query=query, rows=5, timeout_seconds=30)
    assert [row["id"] for row in read_records(metadata["result"])] == [1, 2, 3, 4, 5]
    assert metadata["more_rows"] is True
    assert process.memory_info().rss - memory_before < 100e6


@pytest.mark.parametrize(
    "config",
    [
        {"query": "SELECT 1", "rows": 0},
        {"query": "SELECT 1", "rows": 1001},
        {"query": "SELECT 1", "timeout_seconds": 0},
        {"query": "SELECT 1", "store": "mysql"},
        {},
    ],
)
def test_config_out_of_bounds_is_rejected(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SqlQueryConfig(**config)


def test_query_runs_from_the_command_line(zones_table: None, tmp_path: Path) -> None:
    config = tmp_path / "query.yaml"
    config.write_text("ops: {query: {config: {query: 'SELECT count(*) AS zones FROM kept.zones'}}}")
    completed = subprocess.run(
        [DAGSTER, "job", "execute", "-m", "taxi_assets.definitions", "-j", "sql_query"]
        + ["--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr[-3000:]
    assert "1 row\nzones\n3\n" in completed.stdout + completed.stderr
