"""Reading environment variables, with every complaint collected for one error."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from taxi_assets.redaction import shown


class Variables:
    """An environment; what is missing or wrong in it gathers in `wrong`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.wrong: list[str] = []

    def text(self, name: str, default: str | None = None) -> str:
        """A value; one without a default must be there."""
        value = self.env.get(name) or default
        if value is None:
            self.wrong.append(f"{name} is missing")
            return ""
        return value

    def number(self, name: str, default: int, largest: int) -> int:
        """A whole number from 1."""
        text = self.text(name, str(default))
        if not text.isdecimal() or not 1 <= int(text) <= largest:
            self.wrong.append(f"{name}={shown(text)} is not a whole number from 1 to {largest}")
            return default
        return int(text)

    def share(self, name: str, default: float) -> float:
        """A number from 0 to 1."""
        text = self.text(name, str(default))
        try:
            share = float(text)
        except ValueError:
            share = math.nan
        if not 0 <= share <= 1:
            self.wrong.append(f"{name}={shown(text)} is not a number from 0 to 1")
        return share

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        """One of some words."""
        value = self.text(name, default)
        if value not in choices:
            self.wrong.append(f"{name}={shown(value)} is none of {', '.join(choices)}")
        return value

    def matching(self, name: str, pattern: re.Pattern[str], default: str | None = None) -> str:
        """A value of a given form."""
        value = self.text(name, default)
        if value and not pattern.fullmatch(value):
            self.wrong.append(f"{name}={shown(value)} must match {pattern.pattern}")
        return value

    def secretive(
        self, name: str, pattern: re.Pattern[str], wanted: str, default: str | None = None
    ) -> str:
        """A value of a given form that no message shows: a mistyped one may hold a password."""
        value = self.text(name, default)
        if value and not pattern.fullmatch(value):
            self.wrong.append(f"{name} is not {wanted}")
        return value
