"""The base of all settings models: read variables, and report problems without secrets."""

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
from taxi_assets.settings.addresses import is_valid_url
from taxi_assets.settings.environment import read_environment

Area = TypeVar("Area", bound="SettingsArea")

NEVER_QUOTED = "never quoted"
"""Marks a field whose value no message quotes, because a mistyped one may contain a password."""


def is_local(env: Mapping[str, str]) -> bool:
    """Return whether the profile is `local`, which needs no settings."""
    return env.get("TAXI_PROFILE") != "gcp"


def require_valid(find_problem: Callable[[str], str | None]) -> AfterValidator:
    """Return a validator that rejects a text, secret or not, if the function names a problem."""

    def check(value: Any) -> Any:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if text and (problem := find_problem(text)):
            raise ValueError(problem)
        return value

    return AfterValidator(check)


def require_match(pattern: str | re.Pattern[str], expected: str) -> AfterValidator:
    """Return a validator that rejects a text unless the pattern matches all of it."""
    compiled = re.compile(pattern)
    return require_valid(lambda text: None if compiled.fullmatch(text) else f"is not {expected}")


def require_url(pattern: re.Pattern[str], expected: str) -> AfterValidator:
    """Return a validator that rejects a URL unless the pattern matches and its parts are valid."""
    return require_valid(lambda url: None if is_valid_url(pattern, url) else f"is not {expected}")


def split_commas(value: Any) -> Any:
    """Split a text at its commas; a value of another type is returned unchanged."""
    if not isinstance(value, str):
        return value
    return tuple(part for part in map(str.strip, value.split(",")) if part)


def require_integer(maximum: int, minimum: int = 1, none: str | None = None) -> BeforeValidator:
    """Return a validator that rejects anything but None and an integer within the limits.

    `none` is a word for None.
    """
    expected = f"a whole number from {minimum} to {maximum}"

    def check(value: Any) -> int | None:
        if value is None or str(value).lower() == none:
            return None
        if not str(value).isdecimal() or not minimum <= int(value) <= maximum:
            problem = f"is neither {none!r} nor" if none else "is not"
            raise ValueError(f"{problem} {expected}")
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
        use_attribute_docstrings=True,
    )

    local_defaults: ClassVar[Mapping[str, str]] = {}
    """Values of required variables in profile `local`."""

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[Any, ...]:
        """Construct an area from its arguments alone, never from the environment."""
        return (sources["init_settings"],)

    @classmethod
    def list_variables(cls) -> dict[str, str]:
        """Return the names of the fields by the names of their variables."""
        prefix = cls.model_config["env_prefix"]
        return {
            str(field.validation_alias or f"{prefix}{name.upper()}"): name
            for name, field in cls.model_fields.items()
        }

    @classmethod
    def read_values(cls, env: Mapping[str, str]) -> dict[str, Any]:
        """Return the values of the variables that are set, and the profile's defaults."""
        source = EnvSettingsSource(cls)
        values = dict(cls.local_defaults) if is_local(env) else {}
        values |= {name: env[name] for name in cls.list_variables() if env.get(name)}
        source.env_vars = {name.lower(): value for name, value in values.items()}
        return source()

    def has_effect(self, field: str) -> bool:
        """Return whether a field's value is used; a subclass may ignore some fields."""
        return field in type(self).model_fields

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Self:
        """Return the area with the values of `env`, by default of the process's environment.

        Raises:
            SettingsError: naming every variable of the area that is missing or invalid.
        """
        env = read_environment() if env is None else env
        area, problems = read_area(cls, env)
        if area is None:
            raise build_settings_error(env, problems)
        return area


def build_settings_error(env: Mapping[str, str], problems: Sequence[str]) -> SettingsError:
    """Return one error that lists all problems."""
    profile = quote_redacted(env.get("TAXI_PROFILE") or "local")
    return SettingsError(
        f"profile {profile}: {'; '.join(problems)}. Set them in the environment or in .env "
        "(see .env.example)."
    )


def read_area(area: type[Area], env: Mapping[str, str]) -> tuple[Area | None, tuple[str, ...]]:
    """Return an area and its problems; the area is None if there are any.

    Areas are cached by their values and folders: building one takes a millisecond, and a run reads
    its settings hundreds of times.
    """
    names = {"TAXI_PROFILE", "TAXI_SOURCE", *area.list_variables()}
    values = tuple((name, env[name]) for name in sorted(names) if name in env)
    return _build_area(area, values, _list_base_folders())


@lru_cache(maxsize=64)
def _build_area(
    area: type[Area], values: tuple[tuple[str, str], ...], _folders: tuple[str, ...]
) -> tuple[Area | None, tuple[str, ...]]:
    try:
        return area(**area.read_values(dict(values))), ()
    except ValidationError as error:
        problems = error.errors(include_url=False)
    return None, tuple(_describe_problem(area, problem) for problem in problems)


def _describe_problem(area: type[SettingsArea], problem: Mapping[str, Any]) -> str:
    """Return a message for a problem, with the value only if it cannot be a secret."""
    place = str(problem["loc"][0])
    variable, name = next(pair for pair in area.list_variables().items() if place in pair)
    if problem["type"] == "missing":
        return f"{variable} is missing"
    field = area.model_fields[name]
    message = problem["msg"].partition(" ")[2]  # Pydantic's message begins with `Input`.
    if problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])
    if NEVER_QUOTED in field.metadata or "SecretStr" in str(field.annotation):
        return f"{variable} {message}"
    return f"{variable}={quote_redacted(str(problem['input']))} {message}"


def _list_base_folders() -> tuple[str, ...]:
    """Return the working directory and the home folder, at which relative paths start."""
    try:
        return str(Path.cwd()), os.environ.get("HOME", "")
    except FileNotFoundError:  # The working directory no longer exists.
        return ("",)
