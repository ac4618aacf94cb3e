"""Accept a query only if it is one SELECT, before a server receives it.

Two parsers may interpret one text differently: a line break that only one of them recognizes ends a
comment for it alone, and the rest is a second statement. So BigQuery never receives the text itself
but its tokens, in a form that every parser interprets in the same way: no comment, no line break,
no semicolon, and every string in single quotes. The same text is parsed here. The parse tree is not
used for that: sqlglot 30 turns `SELECT 1 INTO x` into `CREATE TABLE x`, and escapes the escapes of
code points in strings again.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from typing import TYPE_CHECKING

from taxi_assets.errors import StoreError

if TYPE_CHECKING:
    from sqlglot import exp

ONE_SELECT = "sql_query runs one SELECT"
# https://docs.cloud.google.com/bigquery/docs/reference/standard-sql/lexical
TOKEN = re.compile(
    r"""
    (?P<gap>(?:[ \t\n]|--[^\n]*|\#[^\n]*|/\*.*?\*/)+)
    |(?P<prefix>[rR][bB]?|[bB][rR]?)?(?P<quote>'{3}|"{3}|'|")(?P<body>(?:\\.|[^\\])*?)(?P=quote)
    |(?P<plain>[A-Za-z0-9_]+|`[^`\\]+`|(?!/\*)[][(){},.+*/%<>=!|&^~@?:-])
    |(?P<end>;[\s;]*\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
PIECE = re.compile(r"\\.|.", re.DOTALL)
# Control characters and separators of lines and paragraphs, which end a line for some parsers.
BREAKS = frozenset({"Cc", "Zl", "Zp"})


def parse_one_select(query: str, dialect: str) -> exp.Query | exp.Values:
    """Parse a query.

    Raises:
        StoreError: it is another statement, or more than one.
        SqlglotError: it cannot be parsed; the server may accept it.
    """
    import sqlglot
    from sqlglot import exp

    statements = [
        statement
        for statement in sqlglot.parse(query, dialect=dialect)
        if statement is not None and not isinstance(statement, exp.Semicolon)
    ]
    if len(statements) != 1:
        raise StoreError(f"{ONE_SELECT}: these are {len(statements)} statements")
    (statement,) = statements
    writes = next(iter(statement.find_all(exp.DML)), None)
    if writes is not None or not isinstance(statement, exp.Query | exp.Values):
        word = writes.key if writes is not None else query.split(maxsplit=1)[0]
        raise StoreError(f"{ONE_SELECT}: {word.upper()} is rejected")
    return statement


def format_for_bigquery(query: str) -> str:
    """Return a query that is one SELECT in a form that every parser interprets in the same way.

    Raises:
        StoreError: it is not a SELECT, has several statements, or is ambiguous.
    """
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    with suppress(SqlglotError):
        parse_one_select(query, "bigquery")  # Gives the best error for other statements.
    text = _write_out(query)
    try:
        statement = parse_one_select(text, "bigquery")
    except SqlglotError as error:
        raise StoreError(
            f"{ONE_SELECT}, and this cannot be read as one: {str(error).splitlines()[0]}"
        ) from error
    if statement.find(exp.Into, exp.Create, exp.Command):
        raise StoreError(f"{ONE_SELECT}: INTO is rejected")
    return text


def _write_out(query: str) -> str:
    # GoogleSQL ends a line at any of the three.
    query = query.replace("\r\n", "\n").replace("\r", "\n")
    written, at = "", 0
    while at < len(query):
        token = TOKEN.match(query, at)
        if token is None:
            raise StoreError(
                f"{ONE_SELECT}, and this cannot be read as one: character {at + 1}, {query[at]!a}, "
                "begins nothing that ends"
            )
        if token["gap"]:
            written += " "
        elif token["quote"]:
            written += _format_string(token)
        elif token["plain"]:
            written += _reject_line_breaks(token["plain"])
        at = token.end()
    return written.strip()


def _reject_line_breaks(name: str) -> str:
    if any(unicodedata.category(character) in BREAKS for character in name):
        raise StoreError(f"{ONE_SELECT}, and {name!a} is not a valid name")
    return name


def _format_string(token: re.Match[str]) -> str:
    """Write a string out in single quotes, with escapes for everything that may end it."""
    prefix, body = (token["prefix"] or "").lower(), token["body"]
    if len(token["quote"]) == 1 and "\n" in body:
        raise StoreError(f"{ONE_SELECT}, and the string {body[:20]!a} spans lines")
    written = ""
    for piece in PIECE.findall(body):
        if piece[0] == "\\" and "r" not in prefix:
            # An escape stays; only the character that it escapes may need another form.
            written += "\\" + (
                piece[1] if piece[1].isascii() else _escape_character(piece[1], prefix)
            )
        else:
            written += "".join(_escape_character(character, prefix) for character in piece)
    return f"{prefix.replace('r', '')}'{written}'"


def _escape_character(character: str, prefix: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character == "\n":
        return "\\n"
    if unicodedata.category(character) not in BREAKS:
        return character
    if "b" in prefix:
        return "".join(f"\\x{byte:02x}" for byte in character.encode())
    return f"\\u{ord(character):04x}"
