"""What the areas of settings share: how variables are read, and errors that show no secret."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from taxi_assets.errors import SettingsError
from taxi_assets.redaction import quote_redacted
from taxi_assets.settings.environment import read_environment

Area = TypeVar("Area", bound="SettingsArea")

UNSHOWN = "unshown"
"""Marks a field whose value no message quotes: a mistyped one may hold a password."""


def is_local(env: Mapping[str, str]) -> bool:
    """Return whether the profile is the one that needs no settings."""
    return env.get("TAXI_PROFILE") != "gcp"


def checked(find_complaint: Callable[[str], str | None]) -> AfterValidator:
    """Return a validator of a text, secret or not, by a function that names what is wrong."""

    def check(value: Any) -> Any:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if text and (complaint := find_complaint(text)):
            raise ValueError(complaint)
        return value

    return AfterValidator(check)


def matching(pattern: str | re.Pattern[str], expected: str) -> AfterValidator:
    """Return a validator of a text that a pattern must match as a whole."""
    compiled = re.compile(pattern)
    return checked(lambda text: None if compiled.fullmatch(text) else f"is not {expected}")


def whole(maximum: int, minimum: int = 1) -> BeforeValidator:
    """Return a validator of a whole number, or None where the field allows it."""

    def check(value: Any) -> int | None:
        if value is None:
            return None
        if not str(value).isdecimal() or not minimum <= int(value) <= maximum:
            raise ValueError(f"is not a whole number from {minimum} to {maximum}")
        return int(value)

    return BeforeValidator(check)


class SettingsArea(BaseSettings):
    """Settings that belong together: the constructor takes values, `from_env` reads variables.

    A field's variable is its alias, or its name in capitals after the prefix.
    """

    model_config = SettingsConfigDict(
        env_prefix="TAXI_",
        frozen=True,
        enable_decoding=False,
        extra="forbid",
        populate_by_name=True,
        validate_default=True,
        hide_input_in_errors=True,
    )

    local_defaults: ClassVar[Mapping[str, str]] = {}
    """Values of required variables in profile `local`."""

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[Any, ...]:
        """Construct an area from arguments alone, whatever the environment holds."""
        return (sources["init_settings"],)

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Return the names of the fields by those of their variables."""
        prefix = cls.model_config["env_prefix"]
        return {
            str(field.validation_alias or f"{prefix}{name.upper()}"): name
            for name, field in cls.model_fields.items()
        }

    @classmethod
    def values_from(cls, env: Mapping[str, str]) -> dict[str, Any]:
        """Return the values of the variables that are set, or that the profile has."""
        source = EnvSettingsSource(cls)
        given = dict(cls.local_defaults) if is_local(env) else {}
        given |= {name: env[name] for name in cls.variables() if env.get(name)}
        source.env_vars = {name.lower(): value for name, value in given.items()}
        return source()

    def has_effect(self, field: str) -> bool:
        """Return whether a field's value makes a difference."""
        return field in type(self).model_fields

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Self:
        """Return the area as the environment has it.

        Raises:
            SettingsError: naming every variable of the area that is missing or invalid.
        """
        area, problems = read_area(cls, read_environment() if env is None else env)
        if area is None:
            raise settings_error(cls.__name__.removesuffix("Settings").lower(), problems)
        return area


def settings_error(where: str, problems: Sequence[str]) -> SettingsError:
    """Return one error for all problems."""
    return SettingsError(
        f"{where}: {'; '.join(problems)}. Set them in the environment or in .env "
        "(see .env.example)."
    )


def read_area(area: type[Area], env: Mapping[str, str]) -> tuple[Area | None, tuple[str, ...]]:
    """Return an area, or None and everything that is wrong with its variables.

    An area is built once for the same values and folders: that takes a millisecond, and a run reads
    its settings hundreds of times.
    """
    names = {"TAXI_PROFILE", "TAXI_SOURCE", *area.variables()}
    values = tuple((name, env[name]) for name in sorted(names) if name in env)
    return _build_area(area, values, _folders())


@lru_cache(maxsize=64)
def _build_area(
    area: type[Area], values: tuple[tuple[str, str], ...], _folders: tuple[str, ...]
) -> tuple[Area | None, tuple[str, ...]]:
    try:
        return area(**area.values_from(dict(values))), ()
    except ValidationError as error:
        found = error.errors(include_url=False)
    return None, tuple(_describe(area, problem) for problem in found)


def _describe(area: type[SettingsArea], problem: Mapping[str, Any]) -> str:
    """Return what is wrong with a variable, with its value where it can be no secret."""
    place = str(problem["loc"][0])
    variable, name = next(pair for pair in area.variables().items() if place in pair)
    if problem["type"] == "missing":
        return f"{variable} is missing"
    field = area.model_fields[name]
    message = problem["msg"].partition(" ")[2]  # Pydantic's begins with `Input`.
    if problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])
    if UNSHOWN in field.metadata or "SecretStr" in str(field.annotation):
        return f"{variable} {message}"
    return f"{variable}={quote_redacted(str(problem['input']))} {message}"


def _folders() -> tuple[str, ...]:
    """Return the folders that relative paths start at."""
    try:
        return str(Path.cwd()), os.environ.get("HOME", "")
    except FileNotFoundError:  # It was removed under this process.
        return ("",)
