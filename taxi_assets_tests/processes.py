"""Jobs in processes of their own, forked from one that has done their imports.

What runs is `dagster job execute`; only the three seconds of imports are shared.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

IMPORTED = [
    "dagster._cli",
    "google.cloud.bigquery",
    "pgpq",
    "psycopg",
    "taxi_assets.definitions",
    __name__,
]


def execute(arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
    """Run `dagster job execute` in this process, its output appended to `log`."""
    from dagster._cli import cli  # noqa: PLC0415 - in the new process only

    os.environ.clear()
    os.environ.update(environment)
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    # A session of its own, so that its signals do not reach us.
    os.setsid()
    # Definitions name the variables of the environment in which they are built.
    sys.modules.pop("taxi_assets.definitions", None)
    sys.argv = ["dagster", *arguments]
    cli()


def start_job(service: str, first: str, last: str, log: Path, **settings: str) -> ForkServerProcess:
    """Start `<service>_daily` for days, with settings added to those of this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    tags = {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last,
    }
    job = ["-m", "taxi_assets.definitions", "-j", f"{service}_daily", "--tags", json.dumps(tags)]
    process = context.Process(
        target=execute, args=(["job", "execute", *job], os.environ | settings, log)
    )
    process.start()
    return process
