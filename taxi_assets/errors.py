"""What can go wrong, sorted by what helps: waiting, or a person.

Everything here is terminal: trying again without changing anything gives the same answer, so a
step that meets one stops at once. Anything else that a store or a server raises (time-outs, 429,
5xx, lost connections) is left to the retry policy.
"""

from __future__ import annotations


class TerminalError(Exception):
    """Trying again will not help. The message is one line: what, where, found, remedy."""


class SettingsError(TerminalError):
    """An environment variable is missing or wrong."""


class SourceError(TerminalError):
    """A month file is not there, not whole, or not what it should be."""


class DayRefusedError(TerminalError):
    """One day's rows must not land; its neighbours may."""


class StoreError(TerminalError):
    """A store refuses for a reason that waiting does not change (a type, a permission)."""
