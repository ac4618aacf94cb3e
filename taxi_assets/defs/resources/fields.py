"""How the fields of a resource and the settings go together.

Here belongs what lets Dagster's Resources page show how a resource is configured: its fields take
the values that the settings have when the definitions load, a secret one the name of its variable.
A field that is given, by a test or in a run's config, overrides its variable.
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


def field_values(variables: Mapping[str, str], redactable: Collection[str] = ()) -> dict[str, Any]:
    """Return what a resource's fields are set to, by the names of their variables.

    Invalid settings leave them out: the definitions load, and a run reports every problem.
    `redactable` are fields that are secret only as far as redaction changes them.
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


def settings_of(
    resource: object, variables: Mapping[str, str], destination: str | None = None
) -> Settings:
    """Return the settings with a resource's fields in place of their variables.

    Where the field `destination` is given, the resource's other variables are not read: whoever
    chooses a server for a run does not get the password of another one sent there.

    Raises:
        SettingsError: naming every problem.
    """
    fields = {name: getattr(resource, name) for name in variables}
    given = {variables[name]: str(value) for name, value in fields.items() if value is not None}
    env = dict(read_environment())
    if destination is not None and fields[destination] is not None:
        env = {name: value for name, value in env.items() if name not in variables.values()}
    return Settings.from_env(env | given)
