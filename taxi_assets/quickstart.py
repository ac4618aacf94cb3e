"""`python -m taxi_assets.quickstart`: one day of the sample through all five assets.

Makes a `.env` that leads every later command to this checkout's Dagster settings, runs the main
job as a person would, and says what landed where.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

DAY = "2021-01-05"
SERVICE = "yellow"


def main() -> int:
    """Run the main job for a day; returns the exit code."""
    checkout = Path.cwd()
    if not (checkout / "dagster.yaml").is_file():
        sys.stderr.write(f"{checkout} has no dagster.yaml: run this at the root of the checkout\n")
        return 2
    env_file = checkout / ".env"
    if not env_file.exists():
        env_file.write_text(f"# See .env.example for every setting.\nDAGSTER_HOME={checkout}\n")
    tags = json.dumps({"dagster/partition": DAY})
    command = [str(Path(sys.executable).with_name("dagster")), "job", "execute"]
    command += ["-m", "taxi_assets.definitions", "-j", f"{SERVICE}_daily", "--tags", tags]
    sys.stdout.write(
        f"Running {SERVICE}_daily for {DAY}, all five assets, on the embedded stack ...\n"
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if done.returncode:
        sys.stderr.write(done.stderr[-5000:])
        return done.returncode
    sys.stdout.write(_landed(checkout))
    return 0


def _landed(checkout: Path) -> str:
    """What the run recorded, a line a store."""
    os.environ.setdefault("DAGSTER_HOME", str(checkout))
    import dagster as dg  # noqa: PLC0415 - after the run, which needs none of it here

    lines: list[str] = []
    with dg.DagsterInstance.get() as instance:
        for asset in ("raw", "cleaned", "postgres", "gcs", "bigquery"):
            event = instance.get_latest_materialization_event(
                dg.AssetKey([SERVICE, f"{asset}_trips"])
            )
            found = event.asset_materialization if event else None
            if found is None:
                continue
            where = found.metadata.get("dagster/table_name") or found.metadata["dagster/uri"]
            rows = found.metadata["rows"].value
            lines.append(f"  {SERVICE}/{asset}_trips".ljust(26) + f"{rows:>5} rows  {where.value}")
    settings = "Data: synthetic sample (set TAXI_SOURCE for real months, see README)."
    ui = ".venv/bin/dagster dev     opens the UI at http://127.0.0.1:3000"
    return "\n".join([*lines, settings, ui, ""])


if __name__ == "__main__":
    sys.exit(main())
