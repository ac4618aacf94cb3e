"""The monthly report, from the lake's days through the real job to a page and a picture."""

from __future__ import annotations

import base64
import dataclasses
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow.parquet as pq
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.definitions import build_defs
from taxi_assets.defs.monthly_report import compute_month_figures
from taxi_assets.defs.resources.lake import open_lake
from taxi_assets.report.inline_picture import MAX_LENGTH
from taxi_assets.report.page import render_month_page
from taxi_assets.report.zones import find_zone
from taxi_assets.settings import Settings
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.conftest import RealRows
from taxi_assets_tests.defs.jobs.test_daily import write_month
from taxi_assets_tests.stores import Runs
from taxi_assets_tests.tlc.test_sample import BOATS
from taxi_assets_tests.tlc.test_schema_versions import PARQUET, make_trips
from taxi_assets_tests.tlc.zones import ZONES, write_geojson

GREEN = SERVICES["green"]
FEBRUARY = Month(2021, 2)
DAYS = [f"{day}" for day in FEBRUARY.window]
REFERENCES = {"src", "href", "xlink:href"}
VOID = {"br", "col", "hr", "img", "input", "link", "meta"}


@pytest.fixture(autouse=True)
def bucket(home: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a new lake."""
    monkeypatch.setenv("GCS_BUCKET", request.node.name.replace("_", "-")[:60].rstrip("-"))


def make_line(pickup: str, passengers: str = "1", zone_id: int = 74, total: float = 10.5) -> str:
    """Return a green trip."""
    times = f"{pickup},{pickup}"
    return f"2,{times},N,1,{zone_id},42,{passengers},1.50,6.5,0.5,0.5,0,0,,0.3,{total},1,1,0"


def make_month() -> list[str]:
    """Return trips for every day of February, with each kind of dirty row."""
    lines = [
        make_line(f"{day} {hour:02d}:15:00", zone_id=zone_id, total=10 + at / 4)
        for at, day in enumerate(DAYS)
        for hour, zone_id in [(8, 74), (8, 75), (17, 74), *[(23, 264)] * (at % 3)]
    ]
    lines += [
        make_line(f"{DAYS[3]} 10:00:00", passengers="0"),
        make_line(f"{DAYS[4]} 10:00:00", ""),
    ]
    lines += [make_line(f"{DAYS[5]} 11:00:00", total=-4.5), make_line("2009-01-01 00:00:00")]
    return [*lines, "no trip"]


def load_days(runs: Runs, service: Service, *days: str) -> None:
    """Load days as far as the lake."""
    job = build_defs(runs.services).resolve_job_def(f"{service.name}_daily")
    tags = {
        "dagster/asset_partition_range_start": days[0],
        "dagster/asset_partition_range_end": days[-1],
    }
    names = ("raw_trips", "cleaned_trips", "gcs_trips")
    result = job.execute_in_process(
        asset_selection=[dg.AssetKey([service.name, name]) for name in names],
        tags=tags,
        instance=runs.instance,
        raise_on_error=False,
    )
    assert result.success, stores.failure(result)


def run_report(runs: Runs, service: Service, month: str) -> dg.ExecuteInProcessResult:
    """Run `<service>_monthly_report` for a month; it may fail."""
    job = build_defs(runs.services).resolve_job_def(f"{service.name}_monthly_report")
    return job.execute_in_process(
        partition_key=f"{month}-01", instance=runs.instance, raise_on_error=False
    )


def read_report_metadata(runs: Runs, result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """Return the metadata of the report's one materialization."""
    assert result.success, stores.failure(result)
    (event,) = runs.materializations(result.run_id).values()
    return {name: entry.value for name, entry in event.metadata.items()}


def list_report_files(service: Service) -> dict[str, bytes]:
    """Return a service's reports in the lake."""
    folder = stores.lake() / "_reports" / service.name
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Tags(HTMLParser):
    """Checks that tags are balanced; collects their references and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.references: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.references += [v or "" for k, v in attrs if k in REFERENCES]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.references += [v or "" for k, v in attrs if k in REFERENCES]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if {"td", "th"} & set(self.open):
            self.cells[-1] += text


def test_report_numbers_equal_pandas_on_the_lake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = make_month()
    monkeypatch.setenv("TAXI_SOURCE", write_month(tmp_path, GREEN, "2021-02", lines))
    monkeypatch.setenv("TAXI_MAX_INVALID_RATIO", "0.5")
    runs = Runs()
    load_days(runs, GREEN, DAYS[0], DAYS[-1])
    report_metadata = read_report_metadata(runs, run_report(runs, GREEN, "2021-02"))

    lake = pd.read_parquet(stores.lake() / "green")
    pickup = lake["lpep_pickup_datetime"]
    assert report_metadata["trips"] == len(lake) == 28 * 3 + 27 + 1
    assert report_metadata["revenue"] == round(lake["total_amount"].sum(), 2)
    assert report_metadata["negative_totals"] == 1
    assert (
        report_metadata["days_loaded"],
        report_metadata["days_missing"],
        "partial" in report_metadata,
    ) == (28, 0, False)
    assert report_metadata["month_file_rows"] == len(lines)
    assert report_metadata["month_file_rows"] == report_metadata["trips"] + sum(
        report_metadata[f"rows_{why}"] for why in ("dropped", "outside_month", "unreadable")
    )
    assert [
        report_metadata[f"rows_{why}"] for why in ("dropped", "outside_month", "unreadable")
    ] == [2, 1, 1]

    figures = compute_month_figures(open_lake(Settings.from_env().lake), GREEN, FEBRUARY)
    assert figures.zones == lake["pulocationid"].value_counts().to_dict()
    by_day = lake.groupby(pickup.dt.date)["total_amount"].agg(["size", "sum"])
    assert {day: day_figures.trips for day, day_figures in figures.days.items()} == by_day[
        "size"
    ].to_dict()
    assert {day: day_figures.revenue for day, day_figures in figures.days.items()} == by_day[
        "sum"
    ].to_dict()
    means = lake.groupby([pickup.dt.weekday, pickup.dt.hour]).size() / 4
    hourly_means = {
        (weekday, hour): mean
        for weekday, row in enumerate(figures.by_hour)
        for hour, mean in enumerate(row)
        if mean
    }
    assert hourly_means == means.to_dict()
    assert figures.unaccounted == 0

    zones = report_metadata["busiest_zones"].records
    expected = lake["pulocationid"].value_counts()
    assert {row.data["zone"]: row.data["trips"] for row in zones} == {
        find_zone(location).name: trips for location, trips in expected.items()
    }
    stored = list_report_files(GREEN)["2021-02.html"]
    assert stored == render_month_page(figures)
    cells = Tags(stored.decode()).cells
    days = [
        cell
        for cell in cells
        if cell in {f"{day.day}{day_figures.trips}" for day, day_figures in figures.days.items()}
    ]
    assert len(days) == 28
    for text in (f"{len(lake):,}", f"{len(lines):,}", "Left out: passengers are null"):
        assert text in cells


def test_page_and_picture_are_self_contained_and_in_the_materialization(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_ZONES", str(write_geojson(tmp_path / "zones.geojson")))
    runs = Runs()
    load_days(runs, GREEN, "2021-03-01", "2021-03-02")
    result = run_report(runs, GREEN, "2021-03")
    report_metadata = read_report_metadata(runs, result)
    run = runs.instance.get_run_by_id(result.run_id)
    assert run is not None
    tags = {"service": "green", "days": "2021-03", "rows": str(report_metadata["trips"])}
    assert tags.items() <= run.tags.items()
    messages = [
        entry.user_message
        for entry in runs.instance.all_logs(result.run_id)
        if not entry.is_dagster_event
    ]
    summary = f"green 2021-03: report of 2 of 31 days, {report_metadata['trips']} trips, in "
    assert messages[-1].startswith(f"{summary}{report_metadata['page']}; ")
    report_files = list_report_files(GREEN)
    assert set(report_files) == {"2021-03.html", "2021-03.png"}
    text, picture = report_files["2021-03.html"].decode(), report_files["2021-03.png"]

    tags = Tags(text)
    assert (tags.open, tags.references) == ([], ["../index.html"])
    assert not tags.names & {"script", "link", "img", "iframe", "object", "embed"}
    assert "http" not in text
    assert "@import" not in text
    assert text.count("url(") == text.count("url(#hatch)")
    assert "prefers-color-scheme: dark" in text
    assert text.count("<path d=") == len(ZONES)
    assert "Mean trip" in text

    shown_picture = base64.b64decode(
        report_metadata["report"].split("base64,")[1].rstrip(")"), validate=True
    )
    for image, size in ((picture, (1600, 900)), (shown_picture, (1120, 630))):
        assert image.startswith(b"\x89PNG")
        assert struct.unpack(">II", image[16:24]) == size
        assert len(image) < 100_000
    assert (
        report_metadata["page"]
        == report_metadata["dagster/uri"]
        == str(stores.lake() / "_reports/green/2021-03.html")
    )
    assert report_metadata["synthetic sample"]
    assert "Synthetic sample" in text
    assert list(report_metadata)[:3] == ["summary", "trips_by_day", "report"]
    assert len(report_metadata["trips_by_day"]) <= MAX_LENGTH

    index = stores.lake() / "_reports/index.html"
    assert report_metadata["all_months"] == str(index)
    linked = Tags(index.read_text())
    assert linked.open == []
    day = "http://127.0.0.1:3000/assets/green/cleaned_trips?view=partitions&partition=2021-03-0"
    assert {f"{day}1", f"{day}2", "green/2021-03.html"} <= set(linked.references)
    assert f"{day}9" not in linked.references


def test_partial_month_is_marked_and_draws_no_zero_for_missing_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", str(tmp_path / PARQUET))
    table = make_trips({"2023-04-02": 9.0, "2023-04-05": 7.0, "2023-04-30": 8.0, "2023-05-01": 1.0})
    pq.write_table(table, tmp_path / "green_tripdata_2023-04.parquet")
    runs = Runs()
    load_days(runs, GREEN, "2023-04-02", "2023-04-03")
    load_days(runs, GREEN, "2023-04-05")
    report_metadata = read_report_metadata(runs, run_report(runs, GREEN, "2023-04"))
    message = "Partial month: 3 of 30 days are loaded; 1, 4 and 6 to 30 April are not"
    assert report_metadata["partial"] == message
    assert (
        report_metadata["trips"],
        report_metadata["days_loaded"],
        report_metadata["days_missing"],
    ) == (2, 3, 27)
    assert (report_metadata["month_file_rows"], report_metadata["rows_outside_month"]) == (4, 1)
    text = list_report_files(GREEN)["2023-04.html"].decode()
    assert message in text
    cells = Tags(text).cells
    # The third is loaded and has no trips, which is different.
    assert "30" in cells
    assert cells.count("1not loaded") == cells.count("30not loaded") == 1
    assert sum("not loaded" in cell for cell in cells) >= 27
    assert text.count('fill="url(#hatch)"') == 27
    assert cells[cells.index("In days that are not loaded") + 1] == "1"


def test_services_without_totals_or_zones_have_a_report() -> None:
    bare = dataclasses.replace(
        BOATS, columns=tuple(c for c in BOATS.columns if c.published != "Riders")
    )
    bare = dataclasses.replace(bare, columns=bare.columns[:-1])
    runs = Runs(services={**SERVICES, bare.name: bare})
    load_days(runs, bare, "2021-01-05")
    report_metadata = read_report_metadata(runs, run_report(runs, bare, "2021-01"))
    assert report_metadata["trips"] > 100
    assert not {"revenue", "negative_totals", "busiest_zones"} & set(report_metadata)
    text = list_report_files(bare)["2021-01.html"].decode()
    assert "Boats trips, January 2021" in text
    assert "Revenue" not in text
    assert "$" not in text
    assert "zones" not in text
    assert Tags(text).open == []


def test_second_report_replaces_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day, runs, pages = "2021-05-04", Runs(), []
    for rows in (3, 4):
        lines = [make_line(f"{day} 08:00:00")] * rows
        monkeypatch.setenv("TAXI_SOURCE", write_month(tmp_path, GREEN, "2021-05", lines))
        load_days(runs, GREEN, day)
        assert read_report_metadata(runs, run_report(runs, GREEN, "2021-05"))["trips"] == rows
        pages.append(list_report_files(GREEN))
    assert set(pages[1]) - set(pages[0]) == {"2021-05.restatement.html"}
    assert all(pages[0][name] != pages[1][name] for name in pages[0])


def test_month_without_days_in_the_lake_is_rejected_with_the_fix() -> None:
    result = run_report(Runs(), GREEN, "2021-06")
    assert not result.success
    assert "no day of 2021-06 is in" in stores.failure(result)
    assert "materialize green/gcs_trips for its days first" in stores.failure(result)
    assert not (stores.lake() / "_reports").exists()


@pytest.mark.parametrize(
    "tags",
    [
        {"dagster/partition": "2021-06-05"},
        {
            "dagster/asset_partition_range_start": "2021-06-01",
            "dagster/asset_partition_range_end": "2021-07-01",
        },
    ],
    ids=["a day", "two months"],
)
def test_report_run_takes_one_month(tags: dict[str, str]) -> None:
    job = build_defs().resolve_job_def("green_monthly_report")
    result = job.execute_in_process(tags=tags, instance=Runs().instance, raise_on_error=False)
    assert not result.success
    assert "pass the first day of one month among the partitions" in stores.failure(result)


def test_every_row_of_a_real_month_is_accounted_for(
    real_rows: RealRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", str(real_rows.folder / "{service}" / PARQUET))
    runs = Runs()
    load_days(runs, GREEN, "2023-01-01", "2023-01-31")
    report_metadata = read_report_metadata(runs, run_report(runs, GREEN, "2023-01"))
    names = ("month_file_rows", "rows_outside_month", "rows_dropped", "trips")
    assert [report_metadata[name] for name in names] == [
        68_211,
        4,
        336 + 4_324,
        68_211 - 4 - 336 - 4_324,
    ]
    assert "no row is lost without a reason" in list_report_files(GREEN)["2023-01.html"].decode()
    assert len(list_report_files(GREEN)["2023-01.png"]) < 100_000


def test_report_is_requested_for_complete_and_changed_months() -> None:
    defs = build_defs({"green": GREEN})
    lake, monthly_report = (
        dg.AssetKey(["green", "gcs_trips"]),
        dg.AssetKey(["green", "monthly_report"]),
    )

    def report_materialized(
        instance: dg.DagsterInstance, key: dg.AssetKey, *partitions: str
    ) -> None:
        for partition in partitions:
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))

    with dg.DagsterInstance.ephemeral() as instance:
        cursor = None

        def evaluate() -> set[str]:
            nonlocal cursor
            result = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
            cursor = result.cursor
            return set(result.get_requested_partitions(monthly_report))

        assert evaluate() == set()
        report_materialized(instance, lake, *DAYS[:-1])
        assert evaluate() == set()
        report_materialized(instance, lake, DAYS[-1])
        assert evaluate() == {"2021-02-01"}
        report_materialized(instance, monthly_report, "2021-02-01")
        assert evaluate() == set()
        report_materialized(instance, lake, DAYS[9])
        assert evaluate() == {"2021-02-01"}


def test_report_sensor_follows_the_automation_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for value in ("stopped", "running"):
        monkeypatch.setenv("TAXI_AUTOMATION", value)
        sensors = build_defs().get_repository_def().sensor_defs
        (report_sensor,) = (
            sensor
            for sensor in sensors
            if isinstance(sensor, dg.AutomationConditionSensorDefinition)
        )
        assert (report_sensor.name, report_sensor.default_status.value.lower()) == (
            "monthly_report_sensor",
            value,
        )
