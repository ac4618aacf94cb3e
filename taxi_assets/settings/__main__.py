"""`python -m taxi_assets.settings check|write`: check the settings, or document them.

`check` prints every problem with the settings and exits with 1 if there is one. `write` generates
the tables of docs/settings.md and the lines of .env.example of a checkout from the models.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from taxi_assets.errors import TerminalError
from taxi_assets.settings import AREAS, find_problems
from taxi_assets.settings.base import SettingsArea
from taxi_assets.settings.terminal import accept_all_characters

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE, EXAMPLE = "docs/settings.md", ".env.example"
# The generated text, between two marker lines.
GENERATED = re.compile(r"(?s)(settings begin here[^\n]*\n).*?(?=[^\n]*settings end here)")
LINK = re.compile(r"\[([^]]*)]\([^)]*\)")
WIDTH = 118


@dataclass(frozen=True)
class Variable:
    """One environment variable and its documentation."""

    name: str
    default: str
    required: bool
    """Whether profile `gcp` requires it."""
    example: str
    description: str


def read_documented_variables(area: type[SettingsArea]) -> Iterator[Variable]:
    """Yield the variables of an area whose fields have a docstring, which is the description."""
    for name, field_name in area.list_variables().items():
        field = area.model_fields[field_name]
        if field.description:
            default = area.local_defaults.get(name) or _default(field)
            example = str((field.examples or [default])[0])
            description = " ".join(field.description.split())
            yield Variable(name, default, field.is_required(), example, description)


def _default(field: FieldInfo) -> str:
    """Return a default in the form of an environment variable."""
    value = field.default
    if field.is_required() or value is None or isinstance(value, SecretStr):
        return ""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def render_page() -> str:
    """Return the tables of docs/settings.md."""
    lines = list[str]()
    for area in AREAS.values():
        lines += [
            f"\n## {_title(area)}\n",
            "| variable | default | meaning |",
            "| --- | --- | --- |",
        ]
        for variable in read_documented_variables(area):
            required = "`gcp`: required" if variable.required else ""
            default = f"`{variable.default}`" if variable.default else ""
            cell = f"{default} ({required})" if default and required else default or required
            lines.append(f"| `{variable.name}` | {cell} | {variable.description} |")
    return "\n".join(lines)


def render_example() -> str:
    """Return the lines of .env.example."""
    lines = list[str]()
    for area in AREAS.values():
        lines.append(f"\n# --- {_title(area)} ---")
        for variable in read_documented_variables(area):
            plain = LINK.sub(r"\1", variable.description).replace("`", "")
            lines += textwrap.wrap(plain, WIDTH, initial_indent="# ", subsequent_indent="# ")
            lines.append(f"# {variable.name}={variable.example}")
    return "\n".join(lines)


def _title(area: type[SettingsArea]) -> str:
    return (area.__doc__ or "").rstrip(".")


def replace_generated_text(text: str, generated: str) -> str:
    """Return a file's text with the part between its markers replaced."""
    return GENERATED.sub(lambda match: f"{match[1]}{generated}\n\n", text)


def main(arguments: list[str] | None = None) -> int:
    """Check or document the settings, and return the exit code."""
    parser = argparse.ArgumentParser("python -m taxi_assets.settings", description=__doc__)
    parser.add_argument("command", choices=("check", "write"))
    accept_all_characters()
    if parser.parse_args(arguments).command == "write":
        for name, render in {PAGE: render_page, EXAMPLE: render_example}.items():
            file = CHECKOUT / name
            file.write_text(replace_generated_text(file.read_text(), render()))
        return 0
    try:
        problems = find_problems()
    except TerminalError as error:
        problems = [str(error)]
    sys.stdout.writelines(f"{problem}\n" for problem in problems or ["All settings are valid."])
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
