"""Measure the UI with ten years of partitions, two services and a year of history.

    python -m benchmarks.ui [--work DIR] [--repeats 3]

It loads a year of the sample, one month per run, starts Dagster's webserver on that instance, opens
its pages in headless Chromium and prints for each page the time until its last GraphQL response and
its slowest query. It needs the extra `dev` and Debian's package `chromium`. A history in the work
folder is reused.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from statistics import median

import requests
from playwright.sync_api import Page, Request, sync_playwright

from benchmarks.bench import CHECKOUT, PREFIXES, month_start
from taxi_assets.tlc.services import SERVICES

YEARS = 10
MONTHS = 12
READY = 60
"""Seconds for the webserver to answer."""
QUIET = 1.0
"""Seconds without a GraphQL request after which a page is complete (it polls every 2 s or more)."""
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@dataclass
class Visit:
    """The GraphQL requests of one visit to a page."""

    seconds: float
    queries: dict[str, list[tuple[float, int]]] = field(
        default_factory=lambda: defaultdict[str, list[tuple[float, int]]](list)
    )
    """By GraphQL operation: seconds and bytes of each response."""


def pages() -> dict[str, str]:
    """Return the paths of the pages by name."""
    name = next(iter(SERVICES))
    location = "/locations/taxi_assets.definitions"
    asset = f"/assets/{name}/cleaned_trips"
    return {
        "asset graph, all": "/asset-groups",
        "asset graph, a service": f"{location}/asset-groups/{name}/lineage",
        "asset, overview": f"{asset}?view=overview",
        "asset, partitions": f"{asset}?view=partitions",
        "asset, a day": f"{asset}?view=partitions&partition={month_start(MONTHS - 1)}",
        "asset, checks": f"{asset}?view=checks",
        "runs": "/runs",
    }


def environment(work: Path) -> dict[str, str]:
    """Return the environment: ten years of partitions, separate directories."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIXES)}
    first = date.today() - timedelta(days=round(365.25 * YEARS))  # noqa: DTZ011
    return inherited | {
        "PYTHONPATH": str(CHECKOUT),
        "TAXI_ENV_FILE": "none",
        "TAXI_HOME": str(work / "home"),
        "DAGSTER_HOME": str(work / "dagster_home"),
        "TAXI_START_DATE": str(first),
    }


def load_history(work: Path, env: dict[str, str]) -> None:
    """Load a year of the sample for each service, one month per run, unless it is loaded."""
    folder = work / "dagster_home"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(CHECKOUT / "dagster.yaml", folder)
    dagster = str(Path(sys.executable).with_name("dagster"))
    for name in SERVICES:
        for index in range(MONTHS):
            first, last = month_start(index), month_start(index + 1) - timedelta(days=1)
            done = work / f"{name}-{first}"
            if done.exists():
                continue
            tags = {
                "dagster/asset_partition_range_start": str(first),
                "dagster/asset_partition_range_end": str(last),
            }
            job = ["-m", "taxi_assets.definitions", "-j", f"{name}_daily"]
            subprocess.run(
                [dagster, "job", "execute", *job, "--tags", json.dumps(tags)],
                env=env,
                cwd=work,
                check=True,
                capture_output=True,
            )
            done.touch()
            print(f"# {name} {first:%Y-%m} loaded", file=sys.stderr, flush=True)


@contextmanager
def webserver(work: Path, env: dict[str, str]) -> Iterator[str]:
    """Run Dagster's webserver on the instance, and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).with_name("dagster-webserver")), "-p", str(port)]
    with (work / "webserver.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-m", "taxi_assets.definitions"],
            env=env,
            cwd=work,
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + READY
            while not _answers(address):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no webserver after {READY} s, see {work}/webserver.log")
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            process.wait()


def _answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/server_info", timeout=5).ok
    except requests.RequestException:
        return False


def visit(page: Page, url: str) -> Visit:
    """Open a page and wait until it is complete."""
    began = time.monotonic()
    visited = Visit(0)
    last = [began]

    def record_request(request: Request) -> None:
        if not request.url.endswith("/graphql") and "/graphql?" not in request.url:
            return
        answer = request.response()
        size = len(answer.body()) if answer else 0
        sent = json.loads(request.post_data or "{}")
        seconds = request.timing["responseEnd"] / 1000
        visited.queries[str(sent.get("operationName"))].append((seconds, size))
        last[0] = time.monotonic()

    page.on("requestfinished", record_request)
    page.goto(url)
    while not visited.queries or time.monotonic() - last[0] < QUIET:
        page.wait_for_timeout(100)
    page.remove_listener("requestfinished", record_request)
    visited.seconds = last[0] - began
    return visited


def table(visits: dict[str, list[Visit]]) -> str:
    """Return medians of the page's times and its slowest query."""
    lines = [
        "| page | complete after s | GraphQL requests | slowest query | s | KB |",
        "| --- | --: | --: | --- | --: | --: |",
    ]
    for name, repeats in visits.items():
        queries: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
        for repeat in repeats:
            for operation, answers in repeat.queries.items():
                queries[operation].append(max(answers))
        slowest = max(queries, key=lambda operation: median(s for s, _ in queries[operation]))
        seconds = median(s for s, _ in queries[slowest])
        size = median(size for _, size in queries[slowest])
        count = median(sum(map(len, repeat.queries.values())) for repeat in repeats)
        complete = median(repeat.seconds for repeat in repeats)
        lines.append(
            f"| {name} | {complete:.1f} | {count:.0f} | {slowest} | {seconds:.2f} "
            f"| {size / 1e3:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Load the history, measure the pages and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("/tmp/taxi-ui"))  # noqa: S108
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    work: Path = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    env = environment(work)
    load_history(work, env)
    visits: dict[str, list[Visit]] = defaultdict(list)
    with webserver(work, env) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(ARGUMENTS)
        )
        for _ in range(arguments.repeats + 1):
            page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
            for name, path in pages().items():
                visits[name].append(visit(page, address + path))
            page.context.close()
        browser.close()
    # The first round warms up the server and does not count.
    print(table({name: repeats[1:] for name, repeats in visits.items()}))


if __name__ == "__main__":
    main()
