"""The services that this deployment loads (TAXI_SERVICES)."""

from __future__ import annotations

from collections.abc import Mapping

from taxi_assets.errors import SettingsError
from taxi_assets.settings.areas import DefinitionSettings
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import DEFAULT_SERVICES, SERVICES


def load_services() -> dict[str, Service]:
    """Return the services whose assets are defined, in the order of the table.

    Raises:
        SettingsError: TAXI_SERVICES names an unknown service.
    """
    selected = DefinitionSettings.from_env().services or DEFAULT_SERVICES
    unknown = [name for name in selected if name not in SERVICES]
    if unknown:
        raise SettingsError(
            f"TAXI_SERVICES names {', '.join(map(repr, unknown))}: the services are "
            f"{', '.join(SERVICES)}"
        )
    return {name: service for name, service in SERVICES.items() if name in selected}


def find_example_service(services: Mapping[str, Service]) -> Service:
    """Return the first loaded service, for examples in the UI."""
    return next(iter(services.values()), SERVICES[DEFAULT_SERVICES[0]])
