"""Every setting, read from the environment and validated in one place.

Here belong the models of the settings, one per area, and the one reader of `.env`. What a setting
does belongs elsewhere. A profile gives the defaults (`local`: the embedded stack; `gcp`: Google
Cloud) and each variable overrides its profile's. Missing or invalid settings raise one error that
lists every problem, at the first use and not at import.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxi_assets.errors import SettingsError
from taxi_assets.redaction import quote_redacted
from taxi_assets.settings.alerts import AlertSettings
from taxi_assets.settings.areas import (
    AutomationSettings,
    CleaningSettings,
    DefinitionSettings,
    LimitSettings,
    PoolSettings,
    Profile,
    RunSettings,
    SourceSettings,
    StackSettings,
)
from taxi_assets.settings.base import SettingsArea, read_area, settings_error
from taxi_assets.settings.environment import ENV_FILE, read_environment
from taxi_assets.settings.rule_names import DEFAULT_RULES
from taxi_assets.settings.stores import BigQuerySettings, LakeSettings, PostgresSettings

AREAS: dict[str, type[SettingsArea]] = {
    "stack": StackSettings,
    "definitions": DefinitionSettings,
    "pools": PoolSettings,
    "source": SourceSettings,
    "limits": LimitSettings,
    "cleaning": CleaningSettings,
    "runs": RunSettings,
    "postgres": PostgresSettings,
    "lake": LakeSettings,
    "bigquery": BigQuerySettings,
    "automation": AutomationSettings,
    "alerts": AlertSettings,
}
OTHER_VARIABLES = (ENV_FILE, "TAXI_IMAGE_TAG")
"""Read by the reader of `.env` and by docker-compose."""


OURS = re.compile(r"TAXI_[A-Z0-9_]+")


@dataclass(frozen=True)
class Settings:
    """The validated environment of a run; automation and alerts are read where they are used."""

    stack: StackSettings
    definitions: DefinitionSettings
    source: SourceSettings
    limits: LimitSettings
    cleaning: CleaningSettings
    runs: RunSettings
    postgres: PostgresSettings
    lake: LakeSettings
    bigquery: BigQuerySettings

    @property
    def profile(self) -> Profile:
        """`local` or `gcp`."""
        return self.stack.profile

    @property
    def home(self) -> Path:
        """Folder of the embedded stack, the local lake and downloads."""
        return self.stack.home

    @property
    def needs_local_stack(self) -> bool:
        """Whether any store is the embedded one."""
        return self.postgres.host is None or self.bigquery.embedded

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the environment.

        Raises:
            SettingsError: naming every variable that is missing, invalid or unknown.
        """
        env = read_environment() if env is None else env
        names = [name for name in AREAS if name in cls.__dataclass_fields__]
        areas, problems = _read_areas(names, env)
        if problems:
            raise settings_error(
                f"profile {quote_redacted(env.get('TAXI_PROFILE') or 'local')}", problems
            )
        return cls(**areas)


def find_problems(env: Mapping[str, str] | None = None) -> list[str]:
    """Return everything that is wrong with the settings of all areas."""
    return _read_areas(AREAS, read_environment() if env is None else env)[1]


def definition_rules() -> tuple[str, ...]:
    """Return the cleaning rules for the definitions, which load with invalid settings too."""
    try:
        return CleaningSettings.from_env().drop
    except SettingsError:
        return DEFAULT_RULES


def _read_areas(names: Iterable[str], env: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    areas, problems = dict[str, Any](), list[str]()
    for name in names:
        areas[name], found = read_area(AREAS[name], env)
        problems += found
    return areas, list(dict.fromkeys(problems + _unknown_variables(env)))


def _unknown_variables(env: Mapping[str, str]) -> list[str]:
    """Name variables that begin like ours and are none: a typo would do nothing, unnoticed."""
    known = {name for area in AREAS.values() for name in area.variables() if OURS.match(name)}
    problems = []
    for name in sorted(filter(OURS.fullmatch, set(env).difference(known, OTHER_VARIABLES))):
        # Without the prefix, which makes any two alike.
        closest = difflib.get_close_matches(name[5:], sorted(it[5:] for it in known), 1, 0.55)
        hint = f", the closest is TAXI_{closest[0]}" if closest else ""
        problems.append(f"{name} is not a setting{hint}")
    return problems
