"""Every setting, read from the environment and validated in one place.

This package holds one model per area of settings and the only reader of `.env`. Code that acts on
a setting belongs to the room that uses it. A profile gives the defaults (`local`: the embedded
stack; `gcp`: Google Cloud), each variable overrides one of them, and missing or invalid settings
raise one error that lists every problem, at the first use and not at import.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxi_assets.errors import SettingsError
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
from taxi_assets.settings.base import SettingsArea, build_settings_error, read_area
from taxi_assets.settings.environment import ENV_FILE, STACK_MARKER, read_environment
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
OTHER_VARIABLES = (ENV_FILE, STACK_MARKER, "TAXI_IMAGE_TAG")
"""Used by the readers of `.env` and of the environment, and by docker-compose."""
OWN_VARIABLE = re.compile(r"TAXI_[A-Z0-9_]+")


@dataclass(frozen=True)
class Settings:
    """The validated settings of a run; those of automation and alerts have their own readers."""

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
        """The folder of the embedded stack, the local lake and downloads."""
        return self.stack.home

    @property
    def needs_local_stack(self) -> bool:
        """Whether any store is the embedded one."""
        return self.postgres.host is None or self.bigquery.embedded

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `env`, by default from the process's environment.

        Raises:
            SettingsError: naming every variable that is missing, invalid or unknown.
        """
        env = read_environment() if env is None else env
        names = [name for name in AREAS if name in cls.__dataclass_fields__]
        areas, problems = _read_areas(names, env)
        if problems:
            raise build_settings_error(env, problems)
        return cls(**areas)


def find_problems(env: Mapping[str, str] | None = None) -> list[str]:
    """Return one message for each problem with the settings of any area."""
    return _read_areas(AREAS, read_environment() if env is None else env)[1]


def read_rules_for_definitions() -> tuple[str, ...]:
    """Return the cleaning rules for the definitions; the defaults if the setting is invalid."""
    try:
        return CleaningSettings.from_env().drop
    except SettingsError:
        return DEFAULT_RULES


def _read_areas(names: Iterable[str], env: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    areas, problems = dict[str, Any](), list[str]()
    for name in names:
        areas[name], area_problems = read_area(AREAS[name], env)
        problems += area_problems
    return areas, list(dict.fromkeys(problems + _find_unknown_variables(env)))


def _find_unknown_variables(env: Mapping[str, str]) -> list[str]:
    """Return a message for each TAXI_ variable that is not a setting, such as a typo."""
    settings = {name for area in AREAS.values() for name in area.list_variables()}
    settings = set(filter(OWN_VARIABLE.match, settings))
    others = set(env).difference(settings, OTHER_VARIABLES)
    problems = []
    for name in sorted(filter(OWN_VARIABLE.fullmatch, others)):
        # Compare without the prefix, which makes any two names similar.
        suffixes = sorted(setting[5:] for setting in settings)
        closest = difflib.get_close_matches(name[5:], suffixes, 1, 0.55)
        hint = f", the closest is TAXI_{closest[0]}" if closest else ""
        problems.append(f"{name} is not a setting{hint}")
    return problems
