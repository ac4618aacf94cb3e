"""What a person does in Dagster's UI, in headless Chromium against a real `dg dev`.

Screenshots are kept in the test's folder; with `SCREENSHOTS=docs/images` small ones are made for
README and docs.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import pytest
from PIL import Image
from playwright.sync_api import ConsoleMessage, Page, ViewportSize, expect, sync_playwright

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.sample import write_sample_month
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.test_server import DAGSTER, DG, LAUNCH_DAY, ask, dagster_dev, until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's package chromium is missing")

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
LOCATION = "/locations/taxi_assets.definitions"
DAY, FIRST, LAST = "2021-01-05", "2021-01-04", "2021-01-10"
DAYS = 7
SERVICE = SERVICES["green"]
SCREENSHOTS = os.environ.get("SCREENSHOTS")
SLOW = 300_000
"""Milliseconds that a run may take to end on a busy machine."""
expect.set_options(timeout=120_000)
WIDE: ViewportSize = {"width": 1800, "height": 1000}
LOW: ViewportSize = {"width": 1440, "height": 560}
LAPTOP: ViewportSize = {"width": 1440, "height": 900}
SHORTEN_PATHS = """folders => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) for (const folder of folders)
    texts.currentNode.data = texts.currentNode.data.replaceAll(folder, "~/taxi_assets");
}"""
"""Where a picture was taken is nobody's concern."""
SCROLL_TO = """top => {
  for (const element of document.querySelectorAll("*"))
    if (element.scrollHeight > element.clientHeight) element.scrollTop = top;
}"""
LOG_STEP, LOG_END = 150, 15_000
"""Pixels: less than the visible part of a log, and more than a run's log has."""
SMALL = 1200
"""Pixels: width of the pictures in README and docs."""


@dataclass
class Screen:
    """A page of the UI, its errors, and its screenshots."""

    page: Page
    address: str
    folder: Path
    errors: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        """Open a page; a toast or an error page fails the test."""
        self.page.goto(self.address + path)
        return self.page

    def keep(self, name: str) -> None:
        """Save a screenshot, which may show no error."""
        expect(
            self.page.locator("[class*=Toast] :text-matches('error|failed', 'i')")
        ).to_have_count(0)
        expect(self.page.get_by_text("An unexpected error occurred")).to_have_count(0)
        path = self.folder / f"{name}.png"
        self.page.evaluate(SHORTEN_PATHS, [str(Path(sys.prefix).parent), str(self.folder)])
        self.page.screenshot(path=path)
        if SCREENSHOTS:
            shrink(path, REPOSITORY / SCREENSHOTS / path.name)


def shrink(source: Path, target: Path) -> None:
    """Save a narrower picture in few colours for a document."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as image:
        height = round(image.height * SMALL / image.width)
        small = image.convert("RGB").resize((SMALL, height), Image.Resampling.LANCZOS)
        small.quantize(255, dither=Image.Dither.NONE).save(target, optimize=True)


@pytest.fixture
def screen(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    """Open a window on a separate server."""
    del home
    folder = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAXI_START_DATE", "2021-01-01")
        patch.setenv("TAXI_END_DATE", "2021-01-31")
        # The page of a day must not scroll sideways, however long the path of its object is.
        patch.setenv("GCS_BUCKET", "a_folder_with_a_name_without_hyphens_seen")
        with dagster_dev(folder, patch, DG) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            page = browser.new_context(viewport=WIDE).new_page()
            page.set_default_timeout(SLOW)
            window = Screen(page, address, folder)

            def note(message: ConsoleMessage) -> None:
                if message.type == "error":
                    window.errors.append(message.text)

            page.on("console", note)
            page.on("pageerror", lambda error: window.errors.append(str(error)))
            yield window
            browser.close()


def materialize(screen: Screen, days: str, button: str) -> None:
    """Materialize all five assets of the service for some days, from the asset graph."""
    page = screen.open(f"{LOCATION}/asset-groups/{SERVICE.name}/lineage")
    page.get_by_role("button", name="Materialize all").click()
    dialog = page.get_by_role("dialog")
    chosen = dialog.locator("input[type=text]").first
    chosen.fill(days)
    chosen.press("Enter")
    launch = dialog.get_by_role("button", name=button)
    expect(launch).to_be_enabled()
    screen.keep(f"dialog-{button.rsplit(maxsplit=1)[-1]}")
    launch.click()
    expect(dialog).to_have_count(0)


def take_graph_picture(screen: Screen, graph: str) -> None:
    """Keep a picture of the graph whose nodes can be read, without the navigation."""
    page = screen.page
    page.set_viewport_size(LOW)
    page.evaluate("localStorage.setItem('dagster-nav-collapsed', 'true')")
    screen.open(graph)
    expect(page.get_by_text("2 / 2 Passed").first).to_be_visible()
    # It moves until it is in the middle.
    page.wait_for_timeout(1000)
    screen.keep("asset-graph")
    page.evaluate("localStorage.removeItem('dagster-nav-collapsed')")
    page.set_viewport_size(WIDE)


def check_day_page(screen: Screen) -> None:
    """Check sentence, table, picture, plots and checks of a day."""
    asset = f"/assets/{SERVICE.name}/cleaned_trips"
    page = screen.open(f"{asset}?view=partitions&partition={DAY}")
    summary = page.locator("tr", has=page.get_by_text("summary", exact=True)).first
    expect(summary).to_contain_text(
        re.compile(r"\d+ trips, \$[\d,]+.*; \d+ of \d+ rows dropped \(")
    )
    shown = page.locator("tr", has=page.get_by_text("pickups_by_hour")).first.locator("img")
    expect(shown).to_be_visible()
    assert shown.evaluate("image => image.naturalWidth") > 300
    screen.keep("day")
    columns = page.locator("tr", has=page.get_by_text("columns", exact=True)).first
    columns.scroll_into_view_if_needed()
    table = columns.locator("table").first
    expect(table.get_by_text("credit card").first).to_be_visible()
    page.set_viewport_size(LAPTOP)
    beyond = "it => it.getBoundingClientRect().right - document.documentElement.clientWidth"
    assert table.evaluate(beyond) <= 0
    screen.keep("columns")
    for name in ("raw_trips", "cleaned_trips", "gcs_trips", "postgres_trips", "bigquery_trips"):
        check_table_fits_page(
            screen, f"/assets/{SERVICE.name}/{name}?view=partitions&partition={DAY}"
        )
    screen.open(f"{asset}?view=partitions&partition={DAY}")
    page.set_viewport_size(WIDE)
    line = page.locator("tr", has=page.get_by_text("picture", exact=True)).first
    line.get_by_text("[Show Markdown]").click()
    drawn = page.get_by_role("dialog").locator("img")
    expect(drawn).to_be_visible()
    assert drawn.evaluate("image => image.naturalWidth") > 300
    screen.keep("picture")

    page = screen.open(f"{asset}?view=overview")
    page.get_by_text("Plots", exact=True).click()
    expect(page.locator("canvas").first).to_be_visible()
    screen.keep("plots")

    page = screen.open(f"{asset}?view=checks&checkDetail=rows_accounted_for")
    expect(page.get_by_text("Passed").first).to_be_visible()
    screen.keep("checks")
    page.get_by_text("Partitions", exact=True).last.click()
    expect(page.get_by_text(DAY).first).to_be_visible()


def check_table_fits_page(screen: Screen, path: str) -> None:
    """Check that the table of metadata does not scroll sideways."""
    page = screen.open(path)
    table = page.locator("[class*=assetEventMetadataScrollContainer]").first
    expect(table.get_by_text("source_sha256", exact=True)).to_be_visible()
    width, available = table.evaluate("it => [it.scrollWidth, it.clientWidth]")
    assert width <= available, path


def check_launchpads(screen: Screen) -> None:
    """Check that each launchpad opens valid; the small jobs have an example."""
    for job, example in (
        (f"{SERVICE.name}_daily", "template: "),
        (f"{SERVICE.name}_monthly_report", "layout: "),
        ("sql_query", "query: SELECT payment_type, count(*)"),
        ("inspect_object", "object: yellow/tpep_pickup_date=2021-01-05/trips.parquet"),
        ("export_parquet", "first_day: 2021-01-05"),
    ):
        page = screen.open(f"{LOCATION}/jobs/{job}/playground")
        expect(page.locator(".CodeMirror").get_by_text(example).first).to_be_visible()
        expect(page.get_by_text("No errors")).to_be_visible()
        expect(page.get_by_role("button", name="Launch Run")).to_be_enabled()
    screen.keep("launchpad")


def check_runs_by_tag(screen: Screen) -> None:
    """Check that tags filter the list of runs."""
    for tag, runs in (
        (f"service={SERVICE.name}", 2),
        (f"days={DAY}", 1),
        (f"days={FIRST} to {LAST}", 1),
        ("requested_by=Dagster's UI", 1),
    ):
        page = screen.open(f"/runs?view=runs&q[0]={quote(f'tag:{tag}')}")
        expect(page.get_by_role("link", name="View", exact=True)).to_have_count(runs)
    screen.keep("runs-by-tag")


def check_automation_page(screen: Screen) -> None:
    """Check the schedule, and the sensor's first tick after it was switched on."""
    page = screen.open("/automation")
    expect(page.get_by_text(f"{SERVICE.name}_daily_schedule")).to_be_visible()
    screen.keep("automation")
    page = screen.open(f"{LOCATION}/schedules/{SERVICE.name}_daily_schedule")
    expect(page.get_by_text("06:00").or_(page.get_by_text("6:00")).first).to_be_visible()
    screen.keep("schedule")
    page = screen.open(f"{LOCATION}/sensors/{SERVICE.name}_new_month_sensor")
    running = page.locator("tr", has=page.get_by_text("Running", exact=True))
    running.locator("input[type=checkbox]").dispatch_event("click")
    tick = page.get_by_text("0 runs requested").first
    expect(tick).to_be_visible(timeout=SLOW)
    reason = page.get_by_text("the synthetic sample has every month").first
    # The tick moves with the time.
    until(lambda: tick.hover() or reason.is_visible(), SLOW / 1000)
    screen.keep("sensor")


def test_day_and_week_are_loaded_and_shown(screen: Screen) -> None:
    graph = f"{LOCATION}/asset-groups/{SERVICE.name}/lineage"
    page = screen.open(graph)
    expect(page.get_by_text("bigquery_trips")).to_be_visible()
    screen.keep("asset-graph-before")

    materialize(screen, DAY, "Launch 1 run")
    page = screen.open("/runs")
    expect(page.get_by_text("Success", exact=True)).to_be_visible(timeout=SLOW)
    materialize(screen, f"[{FIRST}...{LAST}]", "Launch backfill")
    page = screen.open("/runs")
    expect(page.get_by_text("Success", exact=True)).to_have_count(2, timeout=SLOW)
    screen.keep("runs")

    page = screen.open(graph)
    expect(page.get_by_text("2 / 2 Passed").first).to_be_visible()
    take_graph_picture(screen, graph)
    # A usual day shows no warning.
    expect(page.locator("[aria-label=warning]")).to_have_count(0)

    check_day_page(screen)
    check_runs_by_tag(screen)
    check_launchpads(screen)
    check_automation_page(screen)
    assert screen.errors == []

    totals = stores.store_totals(SERVICE)
    week = [date.fromisoformat(FIRST) + timedelta(days=at) for at in range(DAYS)]
    in_lake = [totals["lake"][day] for day in week]
    assert [totals["postgres"].get(day) for day in week] == in_lake
    assert [totals["bigquery"].get(day) for day in week] == in_lake


def read_log_lines(page: Page) -> list[tuple[str, str]]:
    """Return steps and kinds of the visible log lines; the page draws no others."""
    return LINE.findall(page.locator("body").inner_text())


def collect_log_lines(page: Page) -> tuple[set[tuple[str, str]], list[tuple[str, str]]]:
    """Return the log lines that a run's page showed until its end, and then all of them in order.

    A burst of lines may push some out of sight before they are read, so the whole log is
    scrolled through once the run has succeeded. The page is not reloaded.
    """
    live: set[tuple[str, str]] = set()
    succeeded = page.get_by_text("Success", exact=True)
    deadline = time.monotonic() + SLOW / 1000
    while not succeeded.count():
        assert time.monotonic() < deadline
        live |= set(read_log_lines(page))
        page.wait_for_timeout(100)
    lines: dict[tuple[str, str], None] = {}
    while ("-", "RUN_SUCCESS") not in lines and time.monotonic() < deadline:
        lines.clear()
        for top in range(0, LOG_END, LOG_STEP):
            page.evaluate(SCROLL_TO, top)
            page.wait_for_timeout(50)
            lines |= dict.fromkeys(read_log_lines(page))
            if ("-", "RUN_SUCCESS") in lines:
                break
    return live, list(lines)


LINE = re.compile(r"^(\S+)\n(STEP_START|STEP_SUCCESS|RUN_SUCCESS)$", re.MULTILINE)
STEPS = [f"{SERVICE.name}__{name}_trips" for name in ("raw", "cleaned", "postgres", "gcs")] + [
    f"{SERVICE.name}__bigquery_trips",
    f"{SERVICE.name}_stores_agree",
]


def test_open_run_page_shows_each_step(screen: Screen) -> None:
    run = {
        "selector": {
            "repositoryName": "__repository__",
            "repositoryLocationName": "taxi_assets.definitions",
            "jobName": f"{SERVICE.name}_daily",
        },
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": LAST}]},
    }
    launched = ask(f"{screen.address}/graphql", LAUNCH_DAY, run=run)["launchRun"]
    page = screen.open(f"/runs/{launched['run']['runId']}")
    live, log_lines = collect_log_lines(page)
    assert "STEP_START" in {kind for _, kind in live}
    assert log_lines[-1] == ("-", "RUN_SUCCESS")
    for step in STEPS:
        assert log_lines.index((step, "STEP_START")) < log_lines.index((step, "STEP_SUCCESS")), (
            log_lines
        )
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    screen.keep("run")


def wait_for_chart(page: Page) -> None:
    """Wait until the chart draws the first step where it began, left of the last.

    Steps are first drawn at the right edge, until their times are known.
    """
    began = f"""() => {{
      const [first, last] = ["raw", "bigquery"].map(name => Math.min(
        ...[...document.querySelectorAll("div, span")].filter(
          it => !it.childElementCount && it.textContent === `{SERVICE.name}__${{name}}_trips`
            && it.className.includes("chart-element")
        ).map(it => it.getBoundingClientRect().x)));
      return first < last && first < innerWidth * 0.9;
    }}"""
    page.wait_for_function(began)


def write_fares(folder: Path, fare_of_day: str) -> None:
    """Write the month's file, in which every trip of DAY has this fare."""
    path = folder / "green_2021-01.csv.gz"
    write_sample_month(SERVICE, Month(2021, 1), path)
    with gzip.open(path, "rt", newline="") as lines:
        header, *rows = [line.split(",") for line in lines]
    fare, pickup = header.index("fare_amount"), header.index(SERVICE.pickup)
    for row in rows:
        if row[pickup].startswith(DAY):
            row[fare] = fare_of_day
    with gzip.open(path, "wt", newline="") as lines:
        lines.writelines(",".join(row) for row in [header, *rows])


def execute_job(first: str, last: str) -> subprocess.CompletedProcess[str]:
    """Run the service's job for a range of days by Dagster's command."""
    tags = {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last,
    }
    job = ("-m", "taxi_assets.definitions", "-j", f"{SERVICE.name}_daily")
    command = [DAGSTER, "job", "execute", *job, "--tags", json.dumps(tags)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def reject_a_day(folder: Path, patch: pytest.MonkeyPatch) -> str:
    """Run three days of a month whose second day has unreadable fares; return the run's id."""
    write_fares(folder, "ten")
    patch.setenv("TAXI_SOURCE", str(folder / "{service}_{year}-{month}.csv.gz"))
    patch.setenv("DAGSTER_HOME", str(folder))
    shutil.copy(REPOSITORY / "dagster.yaml", folder)
    done = execute_job(FIRST, "2021-01-06")
    assert done.returncode, done.stdout
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs()
    return run.run_id


def test_cause_of_a_rejected_day_is_two_clicks_from_its_run(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del home
    monkeypatch.setenv("GCS_BUCKET", "rejected")
    monkeypatch.setenv("TAXI_END_DATE", "2021-01-31")
    run_id = reject_a_day(tmp_path, monkeypatch)
    cause = re.compile(
        r"values_readable failed: \d+ of \d+ rows .*month file line \d+: fare_amount='ten'"
    )
    with dagster_dev(tmp_path, monkeypatch, DG) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_context(viewport=LAPTOP).new_page()
        page.set_default_timeout(SLOW)
        screen = Screen(page, address, tmp_path)
        # None: the run's page shows it, in the failure of the last step.
        screen.open(f"/runs/{run_id}")
        failure = page.get_by_text(
            re.compile(f"{SERVICE.name}/cleaned_trips: 1 of 3 days not stored")
        )
        expect(failure.first).to_contain_text(cause)
        wait_for_chart(page)
        screen.keep("rejected-run")
        # The day's page, and its events.
        screen.open(f"/assets/{SERVICE.name}/cleaned_trips?view=partitions&partition={DAY}")
        page.get_by_text(re.compile("View all historical events")).click()
        page.get_by_role("dialog").get_by_text(DAY, exact=True).first.click()
        expect(page.get_by_text(cause).first).to_be_visible()
        screen.keep("rejected-day")
        # The asset that rejected the day is the one that is red; the month's file was read.
        for name, failed in (("cleaned_trips", 1), ("postgres_trips", 0), ("bigquery_trips", 0)):
            screen.open(f"/assets/{SERVICE.name}/{name}?view=partitions")
            expect(page.get_by_text(f"Failed ({failed})")).to_be_visible()
            expect(page.get_by_text("Materialized (2)")).to_be_visible()
        screen.open(f"/assets/{SERVICE.name}/bigquery_trips?view=checks")
        expect(page.get_by_text("Succeeded", exact=True)).to_have_count(2)
        screen.open(f"/assets/{SERVICE.name}/trip_file?view=partitions")
        expect(page.get_by_text("Materialized (1)")).to_be_visible()
        # Of its checks only the one that rejected it failed; the day has no row left.
        checks = screen.open(f"/assets/{SERVICE.name}/cleaned_trips?view=checks")
        expect(checks.get_by_text("Failed", exact=True)).to_have_count(2)
        # A run of `dagster job execute` is on the first page and in the list of jobs.
        screen.open("/overview/timeline")
        expect(page.get_by_role("link", name=f"{SERVICE.name}_daily")).to_be_visible()
        expect(page.get_by_role("link", name="yellow_daily")).to_have_count(0)
        screen.open("/jobs")
        expect(page.get_by_text(re.compile("(seconds?|minutes?) ago$"))).to_have_count(1)
        # The next version of the file repairs the day, whose page has the changes.
        write_fares(tmp_path, "10")
        repaired = execute_job(DAY, DAY)
        assert repaired.returncode == 0, repaired.stdout
        raw = f"/assets/{SERVICE.name}/raw_trips?view=partitions&partition={DAY}"
        check_table_fits_page(screen, raw)
        expect(page.get_by_text("restatement_page", exact=True).first).to_be_visible()
        screen.keep("restated-day")
        browser.close()
