"""An unreadable object rejects only its own day, with its name and the fix."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from logging import ERROR
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
import pytest

from taxi_assets.dagster_internals.partition_records import PartitionRecord
from taxi_assets.definitions import build_defs
from taxi_assets.defs.io_managers.frame import CleanedTripsIOManager
from taxi_assets.defs.io_managers.lake_parquet import LakeTripsIOManager
from taxi_assets.defs.io_managers.monthly_report import MonthlyReportIOManager
from taxi_assets.defs.io_managers.partition_data import (
    CLEANED,
    CleanedPartition,
    Label,
    RawPartition,
    open_stored_trips,
)
from taxi_assets.defs.io_managers.raw_trips import RawTripsIOManager, read_month_counts
from taxi_assets.defs.io_managers.restatement import RawRecord
from taxi_assets.defs.io_managers.sealed_objects import open_sealed_zstd, write_sealed_zstd
from taxi_assets.defs.month_split import split_month
from taxi_assets.defs.monthly_report import compute_month_figures
from taxi_assets.defs.resources.lake import Lake, LakeResource
from taxi_assets.defs.resources.lake_keys import (
    build_cleaned_key,
    build_outside_key,
    build_raw_key,
    build_report_key,
    build_trips_key,
    build_unreadable_key,
)
from taxi_assets.errors import PartitionRejectedError, StoreError, is_transient
from taxi_assets.lazy_partitions import LazyPartitions
from taxi_assets.local.server import pick_free_port
from taxi_assets.report.day_picture import Figures
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import clean_partition, convert_to_table, sum_total_amount
from taxi_assets.trips.profile import profile_partition
from taxi_assets_tests import stores
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line, write_month
from taxi_assets_tests.gcs_server import gcs_server
from taxi_assets_tests.stores import Runs
from taxi_assets_tests.tlc.files import FEBRUARY, HEADER, make_line, open_raw_month
from taxi_assets_tests.tlc.test_parquet_batches import make_trips as published

YELLOW, GREEN = SERVICES["yellow"], SERVICES["green"]
DAYS = [date(2021, 2, day) for day in (3, 4, 5)]
BAD = DAYS[1]
LOG = dg.get_dagster_logger()
NOBODY = 65534


@dataclass(frozen=True)
class StoredDays:
    """Three days in a new lake, with the reader that opens them."""

    lake: Lake
    asset: str
    key: Callable[[date], str]
    read_partition: Callable[[date], object]

    def path(self, day: date = BAD) -> Path:
        return Path(self.lake.root, self.key(day))


def load_raw(folder: Path, resource: LakeResource, ending: str) -> RawTripsIOManager:
    """Store raw objects of three days like `raw_trips`."""
    path = folder / f"yellow_tripdata_2021-02.{ending}"
    if ending == "parquet":
        times = [datetime(2021, 2, day.day, 8, n) for day in DAYS for n in range(5)]  # noqa: DTZ001
        pq.write_table(published([*times]), path)
    else:
        lines = [make_line(f"{day} 08:0{n}:00") for day in DAYS for n in range(5)]
        path.write_bytes(HEADER + b"\n".join([*lines, make_line("2021-01-31 08:00:00"), b""]))
    manager = RawTripsIOManager(SERVICES, resource)
    split = split_month(open_raw_month(path, days=DAYS), LOG.info)
    list(manager.store(YELLOW, [(split, LazyPartitions(DAYS, lambda _: RawRecord({})))], LOG))
    return manager


def load_lake(raw: RawTripsIOManager, resource: LakeResource) -> LakeTripsIOManager:
    """Clean the same days, and copy them into the lake's own folder."""

    def cleaned(raw_slice: RawPartition) -> CleanedPartition:
        cleaned_day = clean_partition(raw_slice.content, YELLOW, ())
        table = convert_to_table(cleaned_day.frame, YELLOW)
        figures = Figures(
            profile_partition(table, YELLOW), cleaned_day.dropped, sum_total_amount(table, YELLOW)
        )
        return CleanedPartition(table, figures, (), raw_slice.source_file, PartitionRecord({}), 0)

    frames = CleanedTripsIOManager(SERVICES, resource)
    list(
        frames.store(
            YELLOW, LazyPartitions(DAYS, lambda day: cleaned(raw.read_partition(YELLOW, day))), LOG
        )
    )
    lake = LakeTripsIOManager(SERVICES, resource)
    list(lake.store(YELLOW, {day: frames.read_partition(YELLOW, day) for day in DAYS}, LOG))
    return lake


@pytest.fixture
def resource(monkeypatch: pytest.MonkeyPatch) -> Iterator[LakeResource]:
    """Return a lake outside pytest's folders, which other users cannot enter."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TAXI_LAKE", str(Path(folder, "lake")))
        yield LakeResource()


@pytest.fixture(params=["raw lines", "raw rows", "cleaned", "lake"])
def stored_days(
    request: pytest.FixtureRequest, tmp_path: Path, resource: LakeResource
) -> StoredDays:
    ending = "parquet" if request.param == "raw rows" else "csv"
    raw, lake = load_raw(tmp_path, resource, ending), resource.lake
    kind = "parquet" if ending == "parquet" else "csv.zst"
    if request.param.startswith("raw"):
        return StoredDays(
            lake,
            "raw_trips",
            lambda day: build_raw_key(YELLOW, day, kind),
            lambda day: raw.read_partition(YELLOW, day),
        )
    stored = load_lake(raw, resource)
    if request.param == "cleaned":
        frames = CleanedTripsIOManager(SERVICES, resource)
        return StoredDays(
            lake,
            CLEANED,
            lambda day: build_cleaned_key(YELLOW, day),
            lambda day: frames.read_partition(YELLOW, day),
        )
    return StoredDays(
        lake,
        "gcs_trips",
        lambda day: build_trips_key(YELLOW, day, "hive"),
        lambda day: stored.read_partition(YELLOW, day),
    )


def read_rejection(stored_days: StoredDays) -> str:
    """Return the rejection of the second day, and open the others."""
    days = LazyPartitions(DAYS, stored_days.read_partition)
    assert [day for day, _ in days] == [DAYS[0], DAYS[2]]
    assert list(days.rejected) == [BAD]
    message = str(days.rejected[BAD])
    assert message.startswith(
        f"yellow/{stored_days.asset} {BAD}: {stored_days.path().parent}/trips."
    )
    assert message.endswith(f"materialize yellow/{stored_days.asset} for {BAD} again")
    assert "\n" not in message
    return message


def empty_object(stored_days: StoredDays) -> None:
    stored_days.path().write_bytes(b"")


def truncate_object(stored_days: StoredDays) -> None:
    stored_days.path().write_bytes(stored_days.path().read_bytes()[:-20])


def flip_bit(stored_days: StoredDays) -> None:
    content = bytearray(stored_days.path().read_bytes())
    content[len(content) // 3] ^= 4
    stored_days.path().write_bytes(content)


def replace_by_folder(stored_days: StoredDays) -> None:
    stored_days.path().unlink()
    stored_days.path().mkdir()


def replace_by_pipe(stored_days: StoredDays) -> None:
    stored_days.path().unlink()
    os.mkfifo(stored_days.path())


def replace_by_link_to_itself(stored_days: StoredDays) -> None:
    stored_days.path().unlink()
    stored_days.path().symlink_to(stored_days.path())


def move_below_a_file(stored_days: StoredDays) -> None:
    shutil.rmtree(stored_days.path().parent)
    stored_days.path().parent.write_bytes(b"")


def replace_by_text(stored_days: StoredDays) -> None:
    stored_days.path().write_bytes(HEADER + make_line(f"{BAD} 08:00:00") + b"\n")


def replace_by_other_tools_file(stored_days: StoredDays) -> None:
    if stored_days.path().suffix == ".zst":
        stored_days.path().write_bytes(pa.Codec("zstd").compress(HEADER, asbytes=True))
    else:
        pq.write_table(
            pq.ParquetFile(stored_days.path()).read().replace_schema_metadata(), stored_days.path()
        )


def replace_by_another_day(stored_days: StoredDays) -> None:
    shutil.copy(stored_days.path(DAYS[0]), stored_days.path())


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (empty_object, "is empty: 0 bytes"),
        (truncate_object, "is truncated|is damaged"),
        (flip_bit, "is damaged: the checksum of its (content|metadata) is"),
        (
            replace_by_folder,
            "cannot be read: a folder, pipe or device is in its place; give this user access",
        ),
        (
            replace_by_pipe,
            "cannot be read: a folder, pipe or device is in its place; give this user access",
        ),
        (
            replace_by_link_to_itself,
            "cannot be read: Too many levels of symbolic links; give this user",
        ),
        (
            move_below_a_file,
            "cannot be read: Not a directory; give this user access or remove it, then",
        ),
        (replace_by_text, "is truncated or not Parquet|was not written by taxi_assets"),
        (replace_by_other_tools_file, "was not written by taxi_assets"),
        (replace_by_another_day, f"contains yellow/(raw|cleaned)_trips {DAYS[0]}"),
    ],
)
def test_damaged_object_rejects_its_day_alone(
    damage: Callable[[StoredDays], None], expected: str, stored_days: StoredDays
) -> None:
    assert [day for day, _ in LazyPartitions(DAYS, stored_days.read_partition)] == DAYS
    damage(stored_days)
    assert re.search(expected, read_rejection(stored_days))


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run as a user to whom permissions apply."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_object_without_read_permission_rejects_its_day_alone(stored_days: StoredDays) -> None:
    root = Path(stored_days.lake.root)
    for path in (root.parent, root, *root.rglob("*")):
        path.chmod(0o755)
    stored_days.path().chmod(0)
    with unprivileged():
        message = read_rejection(stored_days)
    assert "cannot be read: Permission denied; give this user access or remove it, then" in message


def test_object_of_another_service_or_asset_is_rejected(
    tmp_path: Path, resource: LakeResource
) -> None:
    raw = load_raw(tmp_path, resource, "parquet")
    load_lake(raw, resource)
    lake = resource.lake
    lake.copy(build_raw_key(YELLOW, BAD, "parquet"), build_cleaned_key(YELLOW, BAD))
    lake.copy(build_cleaned_key(YELLOW, DAYS[0]), build_raw_key(YELLOW, DAYS[0], "parquet"))
    lake.copy(build_cleaned_key(YELLOW, DAYS[0]), build_cleaned_key(GREEN, DAYS[0]))
    frames = CleanedTripsIOManager(SERVICES, resource)
    for read_partition, service, day, holds in (
        (frames.read_partition, YELLOW, BAD, f"yellow/raw_trips {BAD}"),
        (raw.read_partition, YELLOW, DAYS[0], f"yellow/cleaned_trips {DAYS[0]}"),
        (frames.read_partition, GREEN, DAYS[0], f"yellow/cleaned_trips {DAYS[0]}"),
    ):
        with pytest.raises(
            PartitionRejectedError, match=f"contains {holds}; materialize {service.name}/"
        ):
            read_partition(service, day)


def test_object_damaged_after_opening_is_not_read(tmp_path: Path, resource: LakeResource) -> None:
    stored = load_lake(load_raw(tmp_path, resource, "csv"), resource)
    place = StoredDays(
        resource.lake, "gcs_trips", lambda day: build_trips_key(YELLOW, day, "hive"), lambda _: None
    )
    trips = [stored.read_partition(YELLOW, day) for day in DAYS[:2]]
    flip_bit(place)
    assert trips[0].read_table().num_rows == 5
    with pytest.raises(PartitionRejectedError, match=f"gcs_trips {BAD}: .* is damaged"):
        trips[1].read_table(["total_amount"])
    place.path().unlink()
    with pytest.raises(
        PartitionRejectedError, match=f"gcs_trips {BAD}: .* was deleted after it was opened; mat"
    ):
        trips[1].read_table()


def test_unavailable_lake_rejects_no_day(monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem = pa_fs.GcsFileSystem(
        anonymous=True,
        scheme="http",
        endpoint_override=f"127.0.0.1:{pick_free_port(None)}",
        retry_time_limit=timedelta(seconds=1),
    )
    lake = Lake(filesystem, "taxi", "taxi", "hive")
    with pytest.raises(OSError, match="UNAVAILABLE") as raised:
        open_stored_trips(
            lake, build_cleaned_key(YELLOW, BAD), Label("yellow", CLEANED, str(BAD)), YELLOW
        )
    assert is_transient(raised.value)


def test_damaged_object_on_gcs_rejects_its_day_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "buckets/taxi").mkdir(parents=True)
    with gcs_server(tmp_path / "buckets") as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        monkeypatch.setenv("TAXI_LAKE", "gs://taxi")
        resource = LakeResource()
        raw = load_raw(tmp_path, resource, "csv")
        stored, lake = load_lake(raw, resource), resource.lake
        for asset, key, read_partition in (
            ("raw_trips", build_raw_key(YELLOW, BAD), raw.read_partition),
            ("gcs_trips", build_trips_key(YELLOW, BAD, "hive"), stored.read_partition),
        ):
            content = lake.get(key)
            assert content is not None
            for damaged in (b"", content[:-1], content[:100].to_pybytes() + bytes(9) + content):
                lake.put(key, damaged)
                days = LazyPartitions(
                    DAYS, lambda day, read_partition=read_partition: read_partition(YELLOW, day)
                )
                assert [day for day, _ in days] == [DAYS[0], DAYS[2]]
                message = str(days.rejected[BAD])
                assert message.startswith(f"yellow/{asset} {BAD}: gs://taxi/{key} is ")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("of_month", [build_outside_key, build_unreadable_key])
def test_damaged_month_object_fails_the_report_with_the_fix(
    of_month: Callable[..., str], ending: str, tmp_path: Path, resource: LakeResource
) -> None:
    raw, lake = load_raw(tmp_path, resource, ending), resource.lake
    load_lake(raw, resource)
    assert compute_month_figures(lake, YELLOW, FEBRUARY).trips == 15
    key = of_month(YELLOW, FEBRUARY, "csv.zst" if ending == "csv" else "parquet")
    path = Path(lake.root, key)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        PartitionRejectedError, match=r"materialize yellow/raw_trips for 2021-02 again$"
    ):
        read_month_counts(lake, YELLOW, FEBRUARY)
    with pytest.raises(PartitionRejectedError, match=re.escape(str(path))):
        compute_month_figures(lake, YELLOW, FEBRUARY)


def test_report_names_every_damaged_day_of_its_month(
    tmp_path: Path, resource: LakeResource
) -> None:
    load_lake(load_raw(tmp_path, resource, "csv"), resource)
    for day in DAYS[1:]:
        Path(resource.lake.root, build_trips_key(YELLOW, day, "hive")).write_bytes(b"")
    with pytest.raises(StoreError) as raised:
        compute_month_figures(resource.lake, YELLOW, FEBRUARY)
    for day in DAYS[1:]:
        assert f"materialize yellow/gcs_trips for {day} again" in str(raised.value)


def test_damaged_day_is_omitted_from_store_comparison(
    tmp_path: Path, resource: LakeResource, caplog: pytest.LogCaptureFixture
) -> None:
    manager = load_lake(load_raw(tmp_path, resource, "csv"), resource)
    path = Path(resource.lake.root, build_trips_key(YELLOW, BAD, "hive"))
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(ERROR):
        totals = manager.read_totals(YELLOW, [*DAYS, date(2021, 2, 6)], LOG)
    errors = {record.getMessage() for record in caplog.records if record.levelno == ERROR}
    assert totals == {DAYS[0]: (5, 5.0), DAYS[2]: (5, 5.0), date(2021, 2, 6): (0, 0.0)}
    (error,) = errors
    assert error.startswith(f"yellow/gcs_trips {BAD}: {path} is truncated")


def test_damaged_object_is_not_copied(tmp_path: Path, resource: LakeResource) -> None:
    raw = load_raw(tmp_path, resource, "csv")
    stored = load_lake(raw, resource)
    frames = CleanedTripsIOManager(SERVICES, resource)
    path = Path(resource.lake.root, build_cleaned_key(YELLOW, BAD))
    target = Path(resource.lake.root, build_trips_key(YELLOW, BAD, "hive"))
    before = target.read_bytes()
    trips = {day: frames.read_partition(YELLOW, day) for day in DAYS}
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    outcomes = dict(stored.store(YELLOW, trips, LOG))
    assert isinstance(outcomes[BAD], PartitionRejectedError)
    assert re.search(f"cleaned_trips {BAD}: .* is damaged", str(outcomes[BAD]))
    assert [day for day in DAYS if isinstance(outcomes[day], PartitionRecord)] == [DAYS[0], DAYS[2]]
    assert target.read_bytes() == before


def test_folder_in_place_of_an_object_is_named_at_writing(
    resource: LakeResource,
) -> None:
    for key, problem in (("a.parquet/b", "Is a directory"), ("a.parquet/b/c", "Not a directory")):
        if problem == "Is a directory":
            Path(resource.lake.root, key).mkdir(parents=True)
        else:
            Path(resource.lake.root, "a.parquet/b").rmdir()
            Path(resource.lake.root, "a.parquet/b").touch()
        with pytest.raises(
            StoreError, match=f"cannot write .*{key}: .*; remove the file or folder in its place"
        ):
            resource.lake.put(key, b"new")


def test_binary_report_is_named(resource: LakeResource) -> None:
    key = dg.AssetKey(["yellow", "monthly_report"])
    context = dg.build_input_context(asset_key=key, partition_key="2021-02-01")
    manager = MonthlyReportIOManager(SERVICES, resource)
    with pytest.raises(StoreError, match="does not exist: materialize yellow/monthly_report"):
        manager.load_input(context)
    path = Path(resource.lake.root, build_report_key(YELLOW, FEBRUARY, "html"))
    resource.lake.put(build_report_key(YELLOW, FEBRUARY, "html"), "<p>Café".encode())
    assert manager.load_input(context) == "<p>Café"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        PartitionRejectedError, match=r"monthly_report 2021-02: .* cannot be read: .utf-8"
    ):
        manager.load_input(context)


DOWNSTREAM = {
    "raw_trips": ("cleaned_trips", "postgres_trips", "gcs_trips", "bigquery_trips"),
    "cleaned_trips": ("postgres_trips", "gcs_trips"),
    "gcs_trips": ("bigquery_trips",),
}


@pytest.mark.usefixtures("empty_stores")
def test_damaged_object_stops_no_other_day_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three days loaded before; the second one's rows stay, and its upstream mends it."""
    days = ["2021-02-03", "2021-02-04", "2021-02-05"]
    monkeypatch.setenv(
        "TAXI_SOURCE",
        write_month(tmp_path, GREEN, "2021-02", [make_trip_line(day) for day in days * 2]),
    )
    runs = Runs()
    assert runs.run("green", days[0], days[-1]).success
    before = stores.store_totals(GREEN)
    keys = {
        "raw_trips": build_raw_key(GREEN, BAD),
        "cleaned_trips": build_cleaned_key(GREEN, BAD),
        "gcs_trips": build_trips_key(GREEN, BAD, "hive"),
    }
    job = build_defs().resolve_job_def("green_daily")
    for asset, downstream in DOWNSTREAM.items():
        path = stores.lake() / keys[asset]
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        result = job.execute_in_process(
            asset_selection=[dg.AssetKey(["green", name]) for name in downstream],
            tags={
                "dagster/asset_partition_range_start": days[0],
                "dagster/asset_partition_range_end": days[-1],
            },
            instance=runs.instance,
            raise_on_error=False,
        )
        assert not result.success
        materializations = runs.materializations(result.run_id)
        assert set(materializations) == {
            (f"green/{n}", d) for n in downstream for d in (days[0], days[2])
        }
        assert "1 of 3 days not stored; the other 2 are stored" in stores.failure(result)
        errors = [log for log in runs.instance.all_logs(result.run_id) if log.level >= ERROR]
        messages = [text for log in errors if f"{path} is " in (text := str(log.to_json()))]
        assert messages
        assert all(f"materialize green/{asset} for {BAD} again" in text for text in messages)
        assert not any(event.is_step_up_for_retry for event in result.all_events)
        path.write_bytes(whole)
        # Until it is materialized again, the day stays rejected.
        assert runs.run("green", days[1]).success
        assert stores.store_totals(GREEN) == before
    # The remedy that the message names.
    (stores.lake() / keys["raw_trips"]).write_bytes(b"")
    assert runs.run("green", days[1]).success
    assert stores.store_totals(GREEN) == before


def test_lines_that_exceed_memory_reject_their_day_alone(
    tmp_path: Path, resource: LakeResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = load_raw(tmp_path, resource, "csv")
    path = Path(resource.lake.root, build_raw_key(YELLOW, BAD))
    lines = pa.Codec("zstd").compress(HEADER + make_line(f"{BAD} 08:00:00") * 100_000, asbytes=True)
    metadata, _ = open_sealed_zstd(pa.py_buffer(path.read_bytes()))
    path.write_bytes(write_sealed_zstd(metadata, lines))
    assert path.stat().st_size < 20_000
    monkeypatch.setenv("TAXI_MAX_DAY_BYTES", "1000000")
    days = LazyPartitions(DAYS, lambda day: raw.read_partition(YELLOW, day))
    assert [day for day, _ in days] == [DAYS[0], DAYS[2]]
    assert "unpacks to over 1,000,000 bytes (TAXI_MAX_DAY_BYTES)" in str(days.rejected[BAD])


def test_rows_that_exceed_memory_reject_their_day_alone(
    tmp_path: Path, resource: LakeResource
) -> None:
    raw = load_raw(tmp_path, resource, "parquet")
    path = Path(resource.lake.root, build_raw_key(YELLOW, BAD, "parquet"))
    # An object of version 1 had metadata and no seal.
    payload = json.loads(pq.read_metadata(path).metadata[b"taxi_assets"])
    del payload["seal"], payload["sealed_by"]
    text = pa.DictionaryArray.from_arrays(
        pa.array([0] * 60_000, pa.int32()), pa.array(["x" * 10_000])
    )
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd", store_schema=False) as writer:
        writer.add_key_value_metadata({"taxi_assets": json.dumps(payload)})
        writer.write_table(pa.table([text.dictionary_decode()], schema=schema))
    assert path.stat().st_size < 200_000
    days = LazyPartitions(DAYS, lambda day: raw.read_partition(YELLOW, day))
    assert [day for day, _ in days] == [DAYS[0], DAYS[2]]
    assert "is not a day of trips: 60,000 rows of text unpack to" in str(days.rejected[BAD])
