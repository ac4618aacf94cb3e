"""The cleaning rules of a run: those of the environment (TAXI_DROP), or of the run's config."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from taxi_assets.defs.resources.fields import override
from taxi_assets.errors import SettingsError
from taxi_assets.settings import Settings
from taxi_assets.settings.rule_names import RuleName
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.rules import RULES, is_applicable


class CleaningResource(dg.ConfigurableResource["CleaningResource"]):
    """The cleaning rules, and a limit of rows for a trial run."""

    drop: list[RuleName] | None = override(
        "TAXI_DROP", "Names of the rules whose rows are dropped; an empty list keeps every row"
    )
    row_limit: int | None = Field(
        default=None,
        ge=1,
        description="For a trial run: maximum number of rows of a day after the rules. The others "
        "count as dropped_row_limit. Raw partitions stay complete, so a run without a limit "
        "completes the day again.",
    )

    def rules(self, service: Service) -> tuple[str, ...]:
        """Return the names of the rules of this run.

        Rules of TAXI_DROP drop nothing from a service without their column.

        Raises:
            SettingsError: the run's config names a rule that cannot apply to the service.
        """
        default_rules = Settings.from_env().cleaning.drop
        if self.drop is None:
            return default_rules
        rules = tuple(dict.fromkeys(rule.value for rule in self.drop))
        inapplicable = [
            f"{name} (uses {RULES[name].requirement})"
            for name in rules
            if not is_applicable(name, service)
        ]
        if inapplicable and rules != default_rules:
            names = ", ".join(name for name in RULES if is_applicable(name, service)) or "none"
            raise SettingsError(
                f"cleaning.drop names {', '.join(inapplicable)}: {service.name} publishes no such "
                f"column. Remove it; rules that apply to {service.name}: {names}"
            )
        return rules


def build_cleaning_version(rules: Sequence[str], row_limit: int | None = None) -> str:
    """Return the code version for these rules, so that days with other rules show as stale."""
    limit = "" if row_limit is None else f" limit {row_limit}"
    return f"2 drop {','.join(rules)}{limit}"
