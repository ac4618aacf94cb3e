"""How a day's rows are cleaned: as the environment says (TAXI_DROP), or as a run's config does."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from taxi_assets.errors import SettingsError
from taxi_assets.settings import Settings
from taxi_assets.settings.rule_names import RuleName
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.rules import RULES, is_applicable


class CleaningResource(dg.ConfigurableResource["CleaningResource"]):
    """The cleaning rules, and a limit of rows for a trial."""

    drop: list[RuleName] | None = Field(
        default=None,
        description="Rules by name whose rows are left out, in place of TAXI_DROP for this run; "
        "an empty list leaves every row in.",
    )
    row_limit: int | None = Field(
        default=None,
        ge=1,
        description="For a trial: most rows of a day that are kept after the rules. The others "
        "count as dropped_row_limit. The raw slices stay whole, so that a run without a limit "
        "makes the day whole again.",
    )

    def rules(self, service: Service) -> tuple[str, ...]:
        """Return the names of the rules of this run.

        Those of TAXI_DROP are every service's, and drop nothing where a service lacks the column.

        Raises:
            SettingsError: the run's config names a rule that cannot apply to the service.
        """
        of_all = Settings.from_env().cleaning.drop
        rules = (
            of_all if self.drop is None else tuple(dict.fromkeys(one.value for one in self.drop))
        )
        lacking = [
            f"{name} (uses {RULES[name].requirement})"
            for name in rules
            if not is_applicable(name, service)
        ]
        if lacking and rules != of_all:
            can = ", ".join(name for name in RULES if is_applicable(name, service)) or "none"
            raise SettingsError(
                f"cleaning.drop names {', '.join(lacking)}: {service.name} publishes no such "
                f"column. Leave it out; rules that apply to {service.name}: {can}"
            )
        return rules


def cleaning_version(rules: Sequence[str], row_limit: int | None = None) -> str:
    """Return the code version for these rules, so that days cleaned by others show as stale."""
    limit = "" if row_limit is None else f" limit {row_limit}"
    return f"2 drop {','.join(rules)}{limit}"
