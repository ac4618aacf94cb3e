"""Which services of the table this deployment loads (TAXI_SERVICES)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from taxi_assets.errors import SettingsError
from taxi_assets.settings.areas import DefinitionSettings
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import DEFAULT_SERVICES, SERVICES


def load_services() -> dict[str, Service]:
    """Return the services whose assets are defined, in the order of the table.

    Raises:
        SettingsError: TAXI_SERVICES names one that the table does not have.
    """
    return select_services(DefinitionSettings.from_env().services)


def find_example_service(services: Mapping[str, Service]) -> Service:
    """Return the service that examples are made with: the first one that is loaded."""
    return next(iter(services.values()), SERVICES[DEFAULT_SERVICES[0]])


def select_services(names: Iterable[str]) -> dict[str, Service]:
    """Return services by name; no names are the default ones.

    Raises:
        SettingsError: the table does not have one of them.
    """
    wanted = list(names) or DEFAULT_SERVICES
    unknown = [name for name in wanted if name not in SERVICES]
    if unknown:
        raise SettingsError(
            f"TAXI_SERVICES names {', '.join(map(repr, unknown))}: the services are "
            f"{', '.join(SERVICES)}"
        )
    return {name: service for name, service in SERVICES.items() if name in wanted}
