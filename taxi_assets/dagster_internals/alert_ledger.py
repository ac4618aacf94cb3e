"""Which alerts were sent, kept in Dagster's storage and not in a sensor's cursor.

A cursor is stored when its tick ends: a daemon that dies within one would send everything again.
`daemon_cursor_storage` is where Dagster's daemon keeps its own state; it is not public.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import dagster as dg

KEY = "taxi_assets/alert_ledger"
MAX_TRIES = 2
"""Ticks that may send one alert, if the first died before it noted that it was done."""
KEPT_SECONDS = 30 * 86_400.0
"""For which a sent alert is remembered: no condition is looked for longer."""


@dataclass
class AlertLedger:
    """The alerts of an instance by their key."""

    instance: dg.DagsterInstance
    since: float
    """Seconds since 1970. What happened before is not reported."""
    tries: dict[str, int] = field(default_factory=dict[str, int])
    sent: dict[str, float] = field(default_factory=dict[str, float])
    seen: dict[str, float] = field(default_factory=dict[str, float])
    """When a condition that has to last was first seen."""

    @classmethod
    def load(cls, instance: dg.DagsterInstance, now: float) -> AlertLedger:
        """Read the ledger; an instance without one begins now."""
        text = instance.daemon_cursor_storage.get_cursor_values({KEY}).get(KEY)
        found = json.loads(text) if text else {"since": now}
        return cls(instance, **found)

    def begin(self, key: str, now: float) -> bool:
        """Note that an alert is about to be sent; False if it was sent or tried twice."""
        if key in self.sent or self.tries.get(key, 0) >= MAX_TRIES:
            return False
        self.tries[key] = self.tries.get(key, 0) + 1
        self.save(now)
        return True

    def finish(self, key: str, now: float) -> None:
        """Note that it was sent."""
        self.sent[key] = now
        self.tries.pop(key, None)
        self.save(now)

    def lasts(self, key: str, now: float) -> float:
        """Return for how many seconds a condition has been seen, from now on."""
        return now - self.seen.setdefault(key, now)

    def forget(self, key: str) -> None:
        """Note that a condition does not hold any more."""
        self.seen.pop(key, None)

    def save(self, now: float) -> None:
        """Write the ledger, without what is too old to come again."""
        self.sent = {key: at for key, at in self.sent.items() if now - at < KEPT_SECONDS}
        fields = {name: getattr(self, name) for name in ("since", "tries", "sent", "seen")}
        self.instance.daemon_cursor_storage.set_cursor_values({KEY: json.dumps(fields)})
