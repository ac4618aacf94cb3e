"""A ledger of sent alerts in Dagster's storage.

A sensor's cursor would not do: it is stored when its tick ends, so a daemon that dies within a tick
would send everything again. `daemon_cursor_storage`, where Dagster's daemon stores its own state,
is not public.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import dagster as dg

KEY = "taxi_assets/alert_ledger"
MAX_TRIES = 2
"""Number of ticks that may try to send an alert: the first may die before it records success."""
RETENTION_SECONDS = 30 * 86_400.0
"""Age at which sent alerts are removed; no sensor reads conditions that are older."""


@dataclass
class AlertLedger:
    """The alerts of an instance, by key."""

    instance: dg.DagsterInstance
    since: float
    """Seconds since 1970. Earlier events are not reported."""
    tries: dict[str, int] = field(default_factory=dict[str, int])
    sent: dict[str, float] = field(default_factory=dict[str, float])
    seen: dict[str, float] = field(default_factory=dict[str, float])
    """Time at which a condition was first observed, for alerts on lasting conditions."""

    @classmethod
    def load(cls, instance: dg.DagsterInstance, now: float) -> AlertLedger:
        """Read the ledger; an instance without one starts a new one at `now`."""
        text = instance.daemon_cursor_storage.get_cursor_values({KEY}).get(KEY)
        fields = json.loads(text) if text else {"since": now}
        return cls(instance, **fields)

    def begin(self, key: str, now: float) -> bool:
        """Record an attempt to send an alert; return False if it was sent or tried twice."""
        if key in self.sent or self.tries.get(key, 0) >= MAX_TRIES:
            return False
        self.tries[key] = self.tries.get(key, 0) + 1
        self.save(now)
        return True

    def finish(self, key: str, now: float) -> None:
        """Record that an alert was sent."""
        self.sent[key] = now
        self.tries.pop(key, None)
        self.save(now)

    def measure_duration(self, key: str, now: float) -> float:
        """Return the seconds since a condition was first observed, and record a new one."""
        return now - self.seen.setdefault(key, now)

    def clear(self, key: str) -> None:
        """Record that a condition no longer holds."""
        self.seen.pop(key, None)

    def save(self, now: float) -> None:
        """Write the ledger without alerts that are too old to recur."""
        self.sent = {key: at for key, at in self.sent.items() if now - at < RETENTION_SECONDS}
        fields = {name: getattr(self, name) for name in ("since", "tries", "sent", "seen")}
        self.instance.daemon_cursor_storage.set_cursor_values({KEY: json.dumps(fields)})
