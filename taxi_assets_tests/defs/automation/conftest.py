"""Alerts on a machine on which a process may start slowly."""

import pytest

from taxi_assets.defs.alerts import targets


@pytest.fixture(autouse=True)
def _allow_slow_deliveries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "START_SECONDS", 120.0)
    monkeypatch.setattr(targets, "MAX_SECONDS", 60.0)
