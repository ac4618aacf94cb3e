"""The one place that decides how much of a text may be shown that may hold a secret.

Redact first, parse second: a malformed URL is where parsers find the password in the path, the
port or the query. So a value is shown only where its form leaves no doubt about which part is
secret, and otherwise not at all.
"""

from __future__ import annotations

import re

HIDDEN = "***"
MAX_SHOWN = 200
"""Characters of a value; a key file's content is longer."""
HOST = r"(?:[A-Za-z0-9._{}<>-]*|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?"
URL = re.compile(
    rf"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^/?#@\s'\"]*@)?({HOST})(/[^?#@\s]*)?(?:[?#][^@]*)?"
)
"""Scheme, user and password, host, path, query and fragment, with no `@` left over."""
PARAMETER = re.compile(r"(?i)((?:;|%3f|%26)[\w.~-]*=)[^;/]*")
"""A parameter of a path, or of a query whose `?` is escaped; not `day=`, a folder of a lake."""
PATH = re.compile(r"(?:/(?!/)|\.\.?/|~)[^\n]*")
CREDENTIALS = re.compile(r":.*@", re.DOTALL)
DOUBTFUL = re.compile(r"[@?#=:\x00-\x1f]")
"""What separates a secret from the rest in a URL, a connection string, JSON or a PEM block."""
SUSPECT = re.compile(r"://|\S@\S|[?&][\w.~%-]+=")
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*")
ASSIGNED = re.compile(
    r"(?i)\b(\w*(?:password|passwd|pwd|token|secret|signature)\w*['\"]?\s?[=:]\s?)"
    r"('[^']*'|\"[^\"]*\"|[^\s,;&)'\"]+)"
)
PUNCTUATION = "()<>[]'\"`,;:."


def redact_value(value: str) -> str:
    """Return a URL without user, password, query and fragment; `***` for a doubtful value.

    A path of this machine and a text without a separator of secrets are returned as they are.
    """
    if (url := URL.fullmatch(value)) is not None:
        return PARAMETER.sub(rf"\1{HIDDEN}", "".join(part or "" for part in url.groups()))
    if len(value) > MAX_SHOWN:
        return HIDDEN
    if PATH.fullmatch(value) and not CREDENTIALS.search(value):
        return value
    return HIDDEN if DOUBTFUL.search(value) else value


def quote_redacted(value: str) -> str:
    """Return a value as a message quotes it."""
    return repr(redact_value(value))


def redact_text(text: str) -> str:
    """Return a message, of a library as well, with every URL and password in it redacted."""
    if not SUSPECT.search(text) and not ASSIGNED.search(text):
        return text
    words = re.split(r"(\s+)", text)
    return ASSIGNED.sub(rf"\1{HIDDEN}", "".join(map(_redact_word, words)))


def redact_cause(error: BaseException) -> BaseException:
    """Return an error to be raised `from`: itself, unless a message of its chain holds a secret.

    Dagster stores the messages of the whole chain in its event log.
    """
    messages = list[str]()
    link: BaseException | None = error
    while link is not None and len(messages) < MAX_SHOWN:
        messages.append(str(link))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    if all(redact_text(message) == message for message in messages):
        return error
    clean = RedactedError(f"{type(error).__name__}: {redact_text(messages[0])}")
    return clean.with_traceback(error.__traceback__)


class RedactedError(Exception):
    """An error of a library whose own message held a secret."""


def _redact_word(word: str) -> str:
    if not SUSPECT.search(word):
        return word
    inner = word.strip(PUNCTUATION)
    if not inner or EMAIL.fullmatch(inner):
        return word
    before, after = word.split(inner, 1)
    if "://" in inner or "@" in inner:
        return before + redact_value(inner) + after
    return before + re.split(r"[?&]", inner, maxsplit=1)[0] + f"?{HIDDEN}" + after
