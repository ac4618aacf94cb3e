"""Cuts `google_schema.json` out of the real provider's schema: what `deploy/terraform` uses.

After a change of resources or of the provider's version, where its registry can be reached:

    terraform -chdir=deploy/terraform providers schema -json |
        .venv/bin/python -m taxi_assets_tests.deploy.google_schema
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from taxi_assets_tests.deploy.google_provider import CONFIGURATION, SCHEMA, Values

DOCUMENTATION = ("description", "description_kind")


def cut_schema(complete: Values) -> Values:
    """Return the parts of `terraform providers schema -json` that `deploy/terraform` uses."""
    text = "\n".join(path.read_text() for path in sorted(CONFIGURATION.rglob("*.tf")))
    kinds = {"resource": "resource", "data": "data_source", "ephemeral": "ephemeral_resource"}
    cut = {"provider": _strip_schema(complete["provider"])}
    for word, kind in kinds.items():
        used = set(re.findall(rf'^{word} "(google_\w+)"', text, re.MULTILINE))
        schemas = complete.get(f"{kind}_schemas", {})
        cut[f"{kind}_schemas"] = {name: _strip_schema(schemas[name]) for name in sorted(used)}
    return cut


def _strip_schema(value: Any) -> Any:
    """Return a schema without descriptions and false values."""
    if isinstance(value, dict):
        stripped = {name: _strip_schema(item) for name, item in value.items()}
        return {
            name: item
            for name, item in stripped.items()
            if item not in (False, None) and not (name in DOCUMENTATION and isinstance(item, str))
        }
    return [_strip_schema(item) for item in value] if isinstance(value, list) else value


def _format_lines(schema: Values) -> str:
    """Return JSON with a line for each resource, so that a diff shows which ones changed."""
    parts = []
    for kind, definition in sorted(schema.items()):
        if kind == "provider":
            parts.append(f'"{kind}": {json.dumps(definition, sort_keys=True)}')
            continue
        resources = [
            f'"{name}": {json.dumps(definition[name], sort_keys=True)}' for name in definition
        ]
        parts.append(f'"{kind}": {{\n' + ",\n".join(resources) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> int:
    """Write the file from standard input."""
    complete = json.load(sys.stdin)
    for name, schema in complete.get("provider_schemas", {}).items():
        if name.endswith("/google"):
            complete = schema
    SCHEMA.write_text(_format_lines(cut_schema(complete)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
