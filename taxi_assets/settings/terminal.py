"""Output of this package's commands: any character, in any locale.

DuckDB's tables, progress bars and file names have characters that not every locale has.
"""

from __future__ import annotations

import codecs
import io
import sys


def accept_all_characters() -> None:
    """Make standard output and standard error accept every character.

    The locales C and POSIX name no encoding: the output is UTF-8 there, which is also Python's
    default. In any other encoding a question mark replaces a character that it lacks.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if is_ascii else None, errors="replace")
