"""The rules that clean a service's days in a run."""

from __future__ import annotations

import pytest

from taxi_assets.definitions import build_defs
from taxi_assets.errors import SettingsError
from taxi_assets.tlc.services import SERVICES


def test_taxi_drop_applies_to_all_services_and_run_rules_are_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAXI_DROP", "zero_passengers,zero_distance")
    cleaning = (build_defs().resources or {})["cleaning"]
    # For-hire vehicles publish neither; a job of all services must not fail for that.
    assert cleaning.rules(SERVICES["fhv"]) == ("zero_passengers", "zero_distance")
    of_run = cleaning.model_copy(update={"drop": cleaning.drop[:1]})
    assert of_run.rules(SERVICES["yellow"]) == ("zero_passengers",)
    with pytest.raises(SettingsError, match="fhv publishes no such column"):
        of_run.rules(SERVICES["fhv"])
