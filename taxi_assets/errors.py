"""What can go wrong, sorted by what helps: waiting, or a person.

A terminal error stops a step at once: trying again without changing anything gives the same
answer. What a server raises in passing (time-outs, 429, 5xx, lost connections) is left to the
retry policy. A bug of ours is terminal too.
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


# Modules of the libraries that speak to servers, whose errors may pass.
SERVERS = ("adbc_driver_manager", "google", "requests", "urllib3")
# Among those: the statement or the request itself is wrong.
WRONG = ("ProgrammingError", "IntegrityError", "DataError", "BadRequest", "Forbidden", "NotFound")


class UnavailableError(Exception):
    """A server could not be reached or did not answer in time; it may later."""


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help."""
    kind = type(error)
    if isinstance(error, UnavailableError | ConnectionError | TimeoutError):
        return True
    if isinstance(error, TerminalError) or kind.__name__ in WRONG:
        return False
    return kind.__module__.split(".")[0] in SERVERS or "Unavailable" in kind.__name__
