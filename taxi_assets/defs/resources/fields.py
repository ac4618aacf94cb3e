"""Connect the fields of resources with the settings.

Dagster's Resources page shows the fields of a resource. They have the values of the settings when
the definitions load; a secret field has the name of its variable. A field that is set by a test or
in a run's config overrides its variable.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

import dagster as dg
from pydantic import Field, SecretStr

from taxi_assets.redaction import redact_value
from taxi_assets.settings import AREAS, Settings
from taxi_assets.settings.base import read_area
from taxi_assets.settings.environment import read_environment

Resource = dg.ConfigurableResource[Any]
R = TypeVar("R", bound=Resource)
VARIABLE = "variable"


def override(variable: str, description: str) -> Any:
    """Declare a field that overrides a variable; unset, it has the variable's value."""
    return Field(
        default=None,
        description=f"{description}. In place of {variable}.",
        json_schema_extra={VARIABLE: variable},
    )


def list_variables(resource: type[Resource]) -> dict[str, str]:
    """Return the variables of a resource by the names of the fields that override them."""
    extras = {name: field.json_schema_extra for name, field in resource.model_fields.items()}
    return {name: str(of[VARIABLE]) for name, of in extras.items() if isinstance(of, dict)}


def build_from_environment(resource: type[R], redactable: Collection[str] = ()) -> R:
    """Build a resource whose fields show the values of their variables.

    Invalid settings are left out: the definitions load, and a run reports every problem. A field in
    `redactable` is shown if redaction does not change its value.
    """
    env, values = read_environment(), dict[str, Any]()
    for field, variable in list_variables(resource).items():
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
    return resource(**values)


def read_settings_with_fields(resource: Resource, destination: str | None = None) -> Settings:
    """Return the settings, with a resource's fields in place of their variables.

    If the field `destination` is set, the resource's other variables are ignored, so that a server
    that was chosen for a run does not receive the password of another one.

    Raises:
        SettingsError: naming every problem.
    """
    variables = list_variables(type(resource))
    fields = {name: getattr(resource, name) for name in variables}
    values = {variables[name]: str(value) for name, value in fields.items() if value is not None}
    env = dict(read_environment())
    if destination is not None and fields[destination] is not None:
        env = {name: value for name, value in env.items() if name not in variables.values()}
    return Settings.from_env(env | values)
