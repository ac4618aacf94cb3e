"""Redaction: the only code that decides which part of a text may be shown.

Text is redacted before it is parsed, because in a malformed URL a parser finds the password in the
path, the port or the query. A value is shown only if its form leaves no doubt about which part is
secret; otherwise it is hidden.
"""

from __future__ import annotations

import re

HIDDEN = "***"
MAX_SHOWN = 200
"""Longest value that is shown, in characters; the content of a key file is longer."""
HOST = r"(?:[A-Za-z0-9._{}<>-]*|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?"
URL = re.compile(
    rf"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^/?#@\s'\"]*@)?({HOST})(/[^?#@\s]*)?(?:[?#][^@]*)?"
)
"""Scheme, user and password, host, path, query and fragment, with no `@` left over."""
PARAMETER = re.compile(r"(?i)((?:[;&]|%3f|%26)[\w.~-]*=)[^;&/]*")
"""A parameter of a path, or of a query whose `?` is escaped or missing; not `day=`, a folder of a
lake."""
PATH = re.compile(r"(?:/(?!/)|\.\.?/|~)[^\n]*")
CREDENTIALS = re.compile(r":.*@", re.DOTALL)
DOUBTFUL = re.compile(r"[@?#=:\x00-\x1f]|%40")
"""Separators of secrets in a URL, a connection string, JSON or a PEM block."""
SUSPECT = re.compile(r"://|\S@\S|[?&][\w.~%-]+=")
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*")
ASSIGNED = re.compile(
    r"(?i)\b(\w*(?:password|passwd|pwd|token|secret|signature)\w*['\"]?\s?[=:]\s?)"
    r"('[^']*'|\"[^\"]*\"|[^\s,;&)'\"]+)"
)
PUNCTUATION = "()<>[]'\"`,;:."


def redact_value(value: str) -> str:
    """Return a URL without user, password, query and fragment, and `***` for a doubtful value.

    A local path, and a text without a separator of secrets, is returned unchanged.
    """
    if (url := URL.fullmatch(value)) is not None:
        return PARAMETER.sub(rf"\1{HIDDEN}", "".join(part or "" for part in url.groups()))
    if len(value) > MAX_SHOWN:
        return HIDDEN
    if PATH.fullmatch(value) and not CREDENTIALS.search(value):
        return value
    return HIDDEN if DOUBTFUL.search(value) else value


def quote_redacted(value: str) -> str:
    """Return a redacted value in quotes, for a message."""
    return repr(redact_value(value))


def redact_text(text: str) -> str:
    """Return a message with every URL and password in it redacted, whoever wrote it."""
    if not SUSPECT.search(text) and not ASSIGNED.search(text):
        return text
    tokens = re.split(r"(\s+)", text)
    return ASSIGNED.sub(rf"\1{HIDDEN}", "".join(map(_redact_word, tokens)))


def redact_cause(error: BaseException) -> BaseException:
    """Return a cause to raise `from`: the error itself, or a redacted one if its chain has secrets.

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
    """Stands for a library's error whose message contained a secret."""


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
