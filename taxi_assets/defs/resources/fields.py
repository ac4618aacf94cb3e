"""Connect the fields of resources with the settings.

Dagster's Resources page shows the fields of a resource. They have the values of the settings when
the definitions load; a secret field has the name of its variable. A field that is set by a test or
in a run's config overrides its variable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import dagster as dg
from pydantic import SecretStr

from taxi_assets.redaction import redact_value
from taxi_assets.settings import AREAS, Settings
from taxi_assets.settings.base import read_area
from taxi_assets.settings.environment import read_environment


def read_field_values(
    variables: Mapping[str, str], redactable: Collection[str] = ()
) -> dict[str, Any]:
    """Return the values of a resource's fields from their variables.

    Invalid settings are left out: the definitions load, and a run reports every problem. A field in
    `redactable` is shown if redaction does not change its value.
    """
    env, values = read_environment(), dict[str, Any]()
    for field, variable in variables.items():
        model = next(area for area in AREAS.values() if variable in area.list_variables())
        area, _ = read_area(model, env)
        name = model.list_variables()[variable]
        value = getattr(area, name) if area is not None and area.has_effect(name) else None
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
            public = field in redactable and redact_value(text) == text
            value = text if public else dg.EnvVar(variable) if env.get(variable) else None
        if value is not None and value != "":
            values[field] = list(value) if isinstance(value, tuple) else value
    return values


def read_settings_with_fields(
    resource: object, variables: Mapping[str, str], destination: str | None = None
) -> Settings:
    """Return the settings, with a resource's fields in place of their variables.

    If the field `destination` is set, the resource's other variables are ignored, so that a server
    that was chosen for a run does not receive the password of another one.

    Raises:
        SettingsError: naming every problem.
    """
    fields = {name: getattr(resource, name) for name in variables}
    values = {variables[name]: str(value) for name, value in fields.items() if value is not None}
    env = dict(read_environment())
    if destination is not None and fields[destination] is not None:
        env = {name: value for name, value in env.items() if name not in variables.values()}
    return Settings.from_env(env | values)
