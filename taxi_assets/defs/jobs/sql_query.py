"""`sql_query`: one SELECT on Postgres or BigQuery, its first rows as a table in the run.

The query cannot write. Postgres runs it as a dedicated login role that has only SELECT, in a
read-only transaction; the extended protocol accepts one statement, and the query of a cursor must
be a SELECT. BigQuery receives the query as `one_select.py` parsed it, without comments; a dry run
must classify it as a SELECT, and the emulator runs it in a read-only transaction.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field
from requests import Timeout

from taxi_assets.defs.jobs.one_select import (
    ONE_SELECT,
    format_for_bigquery,
    parse_one_select,
)
from taxi_assets.defs.jobs.result import build_result_table, fail_in_one_line, format_table
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.errors import StoreError, format_count
from taxi_assets.tlc.loaded_services import find_example_service
from taxi_assets.tlc.schema import Service

if TYPE_CHECKING:
    from psycopg import Cursor

NATIVE = {"bool", "bytea", "int2", "int4", "int8", "float4", "float8", "oid"}
"""Types of Postgres that the table shows as values; it shows all others as Postgres's text."""
SLACK = 5
"""Seconds after the time limit of a query before its server counts as dead."""
TRANSIENT = ("57P", "53")
"""Prefixes of SQLSTATEs that the query did not cause: a shutdown, a lack of resources."""
READ_ONLY = {"taxi_assets": "read_only"}
"""Label of BigQuery's jobs. The emulator runs such a job read-only; Google logs the label."""


class SqlQueryConfig(dg.Config):
    """The config of a run."""

    query: str = Field(description="One SELECT (or WITH ... SELECT). Anything else is rejected.")
    store: Literal["postgres", "bigquery"] = Field("postgres", description="The store to query.")
    rows: int = Field(
        20,
        ge=1,
        le=1000,
        description="Rows to read and show, 1 to 1000.",
    )
    timeout_seconds: int = Field(
        60, ge=1, le=3600, description="Seconds after which the query is stopped, 1 to 3600."
    )
    max_gigabytes: int = Field(
        10,
        ge=1,
        description="BigQuery only: a query that would read more does not run.",
    )


@dataclass(frozen=True)
class Rows:
    """The first rows of a result."""

    columns: list[dg.TableColumn]
    rows: list[tuple[Any, ...]]
    """One more than requested if the result has more."""


def _build_example(service: Service) -> dict[str, Any]:
    """Return the initial config of the launchpad."""
    groups = service.find_role("payment") or service.find_role("pickup_zone")
    column = groups or service.pickup_column
    dollars = f", round(sum({service.total})) AS dollars" if service.total else ""
    return {
        "query": f"SELECT {column}, count(*) AS trips{dollars} "  # noqa: S608 - the table's names
        f"FROM ny_taxi.{service.table} GROUP BY {column} ORDER BY trips DESC",
        "store": "postgres",
        "rows": 20,
    }


def build_sql_query_job(services: Mapping[str, Service]) -> dg.JobDefinition:
    """Build the job of one op, `query`."""

    @dg.op(out=dg.Out(dg.Nothing))
    def query(
        context: dg.OpExecutionContext,
        config: SqlQueryConfig,
        postgres: PostgresResource,
        bigquery: BigQueryResource,
    ) -> None:
        """Run one SELECT and show its first rows."""
        from sqlglot.errors import SqlglotError

        began = time.monotonic()
        with fail_in_one_line():
            if config.store == "postgres":
                with suppress(SqlglotError):  # The server enforces its dialect.
                    parse_one_select(config.query, "postgres")
                result = query_postgres(postgres, config)
            else:
                result = query_bigquery(bigquery, config)
        preview = build_result_table(result.columns, result.rows[: config.rows])
        more = len(result.rows) > config.rows
        context.log.info(
            f"{format_count(len(preview.records), 'row')}{', and there are more' if more else ''}\n"
            f"{format_table(preview)}"
        )
        context.add_output_metadata(
            {
                "result": preview,
                "rows": len(preview.records),
                "more_rows": more,
                "seconds": round(time.monotonic() - began, 3),
                "query": dg.MetadataValue.md(f"```sql\n{config.query}\n```"),
            }
        )

    @dg.job(
        name="sql_query",
        config={"ops": {"query": {"config": _build_example(find_example_service(services))}}},
        description="Runs one SELECT, read-only, on Postgres or BigQuery and shows the first rows.",
    )
    def sql_query() -> None:
        query()

    return sql_query


def query_postgres(postgres: PostgresResource, config: SqlQueryConfig) -> Rows:
    """Query Postgres for the first rows as the read-only role.

    Raises:
        StoreError: the server rejected the query, the query exceeded its time limit, or there is no
            read-only role.
    """
    import psycopg
    from psycopg.types.string import TextLoader

    if "\0" in config.query:
        # libpq sends only the text before it, which is another query.
        raise StoreError(f"{ONE_SELECT}: character {config.query.index(chr(0)) + 1} of it is NUL")
    with postgres.connect_reader() as connection, psycopg.Cursor(connection) as cursor:
        for kind in psycopg.adapters.types:
            if kind.name not in NATIVE:
                # As the text of Postgres: a row, JSON, a time that Python cannot represent.
                cursor.adapters.register_loader(kind.oid, TextLoader)
            cursor.adapters.register_loader(kind.array_oid, TextLoader)
        _check_only_reads(cursor)
        cursor.execute("SET TRANSACTION READ ONLY")
        cursor.execute(f"SET LOCAL statement_timeout = {config.timeout_seconds * 1000:d}")
        # The server stops the query at its time limit, except a server that is halted.
        connection.silence_limit = config.timeout_seconds + SLACK
        connection.watches = False
        try:
            # `binary` selects the extended protocol, which accepts one statement.
            cursor.execute(f"DECLARE found NO SCROLL CURSOR FOR {config.query}", binary=True)
            cursor.execute(f"FETCH {config.rows + 1:d} FROM found")
            rows = cursor.fetchall()
        except psycopg.errors.QueryCanceled as error:
            raise _build_timeout_error(config) from error
        except psycopg.Error as error:
            if not error.sqlstate or error.sqlstate.startswith(TRANSIENT):
                raise
            raise StoreError(f"Postgres: {error.diag.message_primary}") from error
        fields = cursor.description or ()
        columns = [dg.TableColumn(field.name, field.type_display) for field in fields]
    return Rows(columns, rows)


def _check_only_reads(cursor: "Cursor[Any]") -> None:
    """Reject a role that can do more than read.

    Raises:
        StoreError: the role is a superuser, is a member of another role, or can write to a table.
    """
    cursor.execute(
        "SELECT current_user, coalesce("
        "CASE WHEN rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
        " THEN 'has a role attribute such as SUPERUSER' END,"
        " (SELECT 'is a member of ' || string_agg(pg_get_userbyid(roleid), ', ')"
        " FROM pg_auth_members WHERE member = r.oid),"
        " (SELECT 'may write to ' || min(oid::regclass::text) FROM pg_class"
        " WHERE relkind IN ('r', 'p', 'v', 'f') AND relnamespace::regnamespace::text"
        " NOT IN ('pg_catalog', 'information_schema')"
        " AND has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE')),"
        " CASE WHEN has_database_privilege(current_database(), 'CREATE')"
        " THEN 'may create schemas' END)"
        " FROM pg_roles r WHERE rolname = current_user"
    )
    user, privilege = cursor.fetchone() or ("", "is not in pg_roles")
    if privilege:
        raise StoreError(
            f"sql_query runs as a role that can only read, and POSTGRES_READER_USER {user!r} "
            f"{privilege}: create a role as docs/operations.md shows"
        )


def query_bigquery(bigquery: BigQueryResource, config: SqlQueryConfig) -> Rows:
    """Query BigQuery for the first rows.

    Raises:
        StoreError: BigQuery rejected the query, or the query exceeded its time limit.
    """
    from google.api_core.exceptions import ClientError
    from google.cloud.bigquery import QueryJobConfig

    query = format_for_bigquery(config.query)
    with bigquery.client() as client:
        try:
            # Retries would continue after the time limit.
            in_time: dict[str, Any] = {
                "timeout": config.timeout_seconds,
                "retry": None,
                "job_retry": None,
            }
            dry = QueryJobConfig(dry_run=True, use_query_cache=False, labels=READ_ONLY)
            plan = client.query(query, job_config=dry, **in_time)
            # The emulator has no type for a UNION; BigQuery classifies it as a SELECT.
            if plan.statement_type not in ("SELECT", None):
                raise StoreError(f"{ONE_SELECT}: {plan.statement_type} is rejected")
            job = client.query(
                query,
                job_config=QueryJobConfig(
                    job_timeout_ms=config.timeout_seconds * 1000,
                    maximum_bytes_billed=config.max_gigabytes * 10**9,
                    labels=READ_ONLY,
                ),
                **in_time,
            )
            result = job.result(
                max_results=config.rows + 1, timeout=config.timeout_seconds, job_retry=None
            )
            rows = [tuple(row.values()) for row in result]
        except (TimeoutError, Timeout) as error:
            raise _build_timeout_error(config) from error
        except ClientError as error:
            # Without the URL of the request.
            message = error.errors[0]["message"] if error.errors else error.message
            raise StoreError(f"BigQuery: {message}") from error
        columns = [dg.TableColumn(field.name, field.field_type) for field in result.schema]
        return Rows(columns, rows)


def _build_timeout_error(config: SqlQueryConfig) -> StoreError:
    return StoreError(
        f"the query was stopped after {config.timeout_seconds} s: narrow it, or raise "
        "timeout_seconds"
    )
