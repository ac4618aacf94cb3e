"""Clients of BigQuery: Google's, or an emulator's endpoint without credentials."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dagster as dg
from requests import ConnectionError as NobodyListensError
from requests import JSONDecodeError
from requests.adapters import HTTPAdapter

from taxi_assets import local
from taxi_assets.defs.metadata.table_metadata import URI
from taxi_assets.defs.resources.fields import override, read_settings_with_fields
from taxi_assets.errors import StoreError, UnavailableError
from taxi_assets.settings import Settings
from taxi_assets.settings.addresses import LOOPBACK
from taxi_assets.settings.stores import BigQuerySettings

if TYPE_CHECKING:
    from google.cloud.bigquery import Client
    from requests import PreparedRequest, Response


class BigQueryResource(dg.ConfigurableResource["BigQueryResource"]):
    """BigQuery as configured by the fields or the environment (BIGQUERY_*), or the embedded one.

    If `emulator` is set, only the fields count.
    """

    project: str | None = override("GCP_PROJECT", "Project of the tables and jobs")
    dataset_name: str | None = override("BIGQUERY_DATASET", "Dataset of the tables")
    location: str | None = override("BIGQUERY_LOCATION", "Location of a new dataset")
    emulator: str | None = override(
        "BIGQUERY_ENDPOINT",
        "Endpoint of an emulator. If it is set, the other fields count instead of their variables: "
        "no token is sent to another server",
    )
    token: str | None = override("BIGQUERY_TOKEN", "Token that the emulator requires")
    timeout: int | None = override("BIGQUERY_TIMEOUT", "Seconds until a call is retried")

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Import Google's client (0.2 s) while the month file is read."""
        del context
        Thread(target=_import_client, daemon=True).start()

    @cached_property
    def settings(self) -> BigQuerySettings:
        """Project, dataset, location and endpoint."""
        return read_settings_with_fields(self, destination="emulator").bigquery

    @property
    def dataset(self) -> str:
        """`project.dataset`."""
        return f"{self.settings.project}.{self.settings.dataset}"

    def _connect_emulator(self) -> tuple[str | None, str]:
        """Return endpoint and token of an emulator; None for Google."""
        if self.settings.embedded:
            stack = local.ensure_stack_running(Settings.from_env().home)
            return stack.bigquery_endpoint, stack.bigquery_token
        return self.settings.endpoint, self.settings.token.get_secret_value()

    def build_place_metadata(self, table: str) -> dict[str, dg.MetadataValue[Any]]:
        """Return the location of a table: in Google's console, or in an external emulator.

        The embedded emulator has none, because its port changes.
        """
        settings, endpoint = self.settings, self._connect_emulator()[0]
        if endpoint is None:
            return {URI: dg.MetadataValue.url(build_console_url(settings, table))}
        if settings.embedded:
            return {}
        dataset = f"projects/{settings.project}/datasets/{settings.dataset}"
        # Not a link, because a browser does not send the emulator's token.
        address = f"{endpoint}/bigquery/v2/{dataset}/tables/{table}"
        return {URI: dg.MetadataValue.text(address)}

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Open a client, and close it at the end.

        Raises:
            StoreError: there are no credentials for Google Cloud.
            UnavailableError: a proxy answered in place of BigQuery.
        """
        from google.auth.exceptions import DefaultCredentialsError

        settings = self.settings
        endpoint, token = self._connect_emulator()
        try:
            with (
                _create_google_client(settings)
                if endpoint is None
                else create_emulator_client(settings.project, endpoint, token)
            ) as client:
                _limit_retries(client, settings.timeout, embedded=settings.embedded)
                yield client
        except DefaultCredentialsError as error:
            raise StoreError(
                "no credentials for Google Cloud: set GOOGLE_APPLICATION_CREDENTIALS to a key "
                "file, or run `gcloud auth application-default login`"
            ) from error
        except JSONDecodeError as error:
            raise UnavailableError(
                f"{endpoint or 'Google'} did not answer with JSON, as BigQuery does: a proxy may "
                "require a sign-in"
            ) from error


def _create_google_client(settings: BigQuerySettings) -> AbstractContextManager[Client]:
    from dagster_gcp import BigQueryResource as GoogleBigQuery

    return GoogleBigQuery(project=settings.project, location=settings.location).get_client()


def _import_client() -> None:
    """Import Google's client, and let other threads continue ten times as often meanwhile.

    Each numpy call of the pass over a month file would otherwise wait 5 ms for the interpreter:
    together they took 2.0 s on a busy machine, and take 1.4 s.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(interval / 10)
    try:
        import_module("google.cloud.bigquery")
    finally:
        sys.setswitchinterval(interval)


def build_console_url(settings: BigQuerySettings, table: str) -> str:
    """Return the URL of a table in Google's console."""
    return (
        f"https://console.cloud.google.com/bigquery?project={settings.project}&p={settings.project}"
        f"&d={settings.dataset}&t={table}&page=table"
    )


def _limit_retries(client: Client, seconds: float, *, embedded: bool) -> None:
    """Limit the wait for each response.

    Google's client waits forever by default, and its `timeout` arguments limit either no call
    inside `result()` or the duration of the job as well. It retries an unreachable server for ten
    minutes; but the embedded one is started by the step's next attempt, not by waiting.
    """

    class TimeoutAdapter(HTTPAdapter):
        def send(self, request: PreparedRequest, *arguments: Any, **options: Any) -> Response:
            options["timeout"] = options.get("timeout") or seconds
            if urlsplit(request.url).hostname in LOOPBACK:
                options["proxies"] = {}  # HTTP_PROXY is for other machines.
            try:
                return super().send(request, *arguments, **options)
            except NobodyListensError as error:
                if not embedded:
                    raise
                raise UnavailableError("the embedded BigQuery ended under this run") from error

    for scheme in ("http://", "https://"):
        client._http.mount(scheme, TimeoutAdapter())  # noqa: SLF001 - no public way to its session


def create_emulator_client(project: str, endpoint: str, token: str = "") -> Client:
    """Return a client of an emulator that sends the token with every request."""
    from google.api_core.client_options import ClientOptions
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    class TokenCredentials(AnonymousCredentials):
        def before_request(self, *arguments: Any) -> None:
            if token:
                arguments[-1]["authorization"] = f"Bearer {token}"

        def refresh(self, _request: object) -> None:
            """Keep the token; the server's response to a retry names the problem."""

    return bigquery.Client(
        project=project,
        credentials=TokenCredentials(),  # type: ignore[no-untyped-call]
        client_options=ClientOptions(api_endpoint=endpoint),
    )
