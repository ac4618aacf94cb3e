"""The column of each published name, in every schema version."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.column import Column
from taxi_assets.tlc.header import (
    Header,
    HeaderError,
    match_header,
    parse_header_line,
    parse_stored_header,
)
from taxi_assets.tlc.schema import SchemaVersion, Service
from taxi_assets.tlc.services import GREEN, SERVICES, YELLOW

VERSIONS = [
    (service, schema_version)
    for service in SERVICES.values()
    if service.has_fixed_order
    for schema_version in service.schema_versions
]
each_version = pytest.mark.parametrize(
    ("service", "schema_version"),
    VERSIONS,
    ids=[f"{service.name} {schema_version.months}" for service, schema_version in VERSIONS],
)


def find_last_month(schema_version: SchemaVersion) -> Month:
    year, month = schema_version.months.split(" ")[-1].split("-")
    return Month(int(year), int(month))


def name_columns(header: Header) -> list[str]:
    return [column.name for column in header.columns if column]


@each_version
def test_header_of_each_version_is_recognised(
    service: Service, schema_version: SchemaVersion
) -> None:
    header = match_header(schema_version.header, service)
    assert (
        header.schema_version.months == schema_version.months
        or header.schema_version.header == schema_version.header
    )
    assert header.unknown == ()
    assert len(header.raw_only) in (0, 4)
    assert set(service.required) <= set(name_columns(header))
    assert sorted([*name_columns(header), *header.absent]) == sorted(service.arrow_schema.names)


@each_version
def test_blanks_case_and_quotes_of_names_are_ignored(
    service: Service, schema_version: SchemaVersion
) -> None:
    plain = match_header(schema_version.header, service)
    for spelled in (
        ", ".join(schema_version.header),
        ",".join(name.upper() for name in schema_version.header),
        ",".join(f'"{name.strip()}"' for name in schema_version.header),
    ):
        line = b"\xef\xbb\xbf" + spelled.encode() + b"\r\n"
        header = parse_header_line(line, service)
        assert (name_columns(header), header.labels) == (name_columns(plain), plain.labels)


@each_version
def test_renamed_column_is_rejected_with_both_names(
    service: Service, schema_version: SchemaVersion
) -> None:
    for index, name in enumerate(schema_version.header):
        renamed = (*schema_version.header[:index], "renamed", *schema_version.header[index + 1 :])
        column = service.by_name.get(name.strip().lower())
        if schema_version.parquet and column is service.columns[-1]:
            continue  # indistinguishable from another new column
        if name.strip().lower() == "airport_fee":
            continue
        for by_name in (False, True):
            with pytest.raises(HeaderError, match=rf"missing {name.strip()}.*; unknown 'renamed'"):
                match_header(
                    renamed, service, by_name=by_name, month=find_last_month(schema_version)
                )


@each_version
def test_missing_column_rejects_csv_and_is_null_in_parquet(
    service: Service, schema_version: SchemaVersion
) -> None:
    extra = schema_version.header.index(
        next(n for n in schema_version.header if n.lower().startswith("mta"))
    )
    shortened = (*schema_version.header[:extra], *schema_version.header[extra + 1 :])
    with pytest.raises(HeaderError, match=r"(?i)missing mta_tax"):
        match_header(shortened, service)
    assert "mta_tax" in match_header(shortened, service, by_name=True).absent
    for required in service.required:
        remaining = tuple(
            name
            for name in schema_version.header
            if service.by_name.get(name.strip().lower()) is None
            or service.by_name[name.strip().lower()].name != required
        )
        with pytest.raises(HeaderError, match="missing"):
            match_header(remaining, service, by_name=True)


@each_version
def test_order_matters_only_for_columns_without_names(
    service: Service, schema_version: SchemaVersion
) -> None:
    turned = (*schema_version.header[1:], schema_version.header[0])
    with pytest.raises(HeaderError, match="in another order: column 1 is"):
        match_header(turned, service)
    assert sorted(name_columns(match_header(turned, service, by_name=True))) == sorted(
        name_columns(match_header(schema_version.header, service))
    )


@pytest.mark.parametrize("position", [0, 5, 18])
def test_new_column_is_unknown_at_any_position(position: int) -> None:
    names = [*YELLOW.header]
    names.insert(position, "surge_fee")
    header = match_header(tuple(names), YELLOW)
    assert header.unknown == ("surge_fee",)
    assert header.pickup_index == names.index("tpep_pickup_datetime")
    assert name_columns(header) == [column.name for column in YELLOW.header_columns]


def test_coordinates_stay_in_raw() -> None:
    header = match_header(YELLOW.schema_versions[0].header, YELLOW)
    assert header.raw_only == ("Start_Lon", "Start_Lat", "End_Lon", "End_Lat")
    assert {"pulocationid", "dolocationid"} <= set(header.absent)


def test_yellow_ids_are_labels_until_2014_and_flags_always() -> None:
    labels = {
        schema_version.months: set(match_header(schema_version.header, YELLOW).labels)
        for schema_version in YELLOW.schema_versions
    }
    label_columns = {"vendorid", "payment_type", "store_and_fwd_flag"}
    assert [months for months, names in labels.items() if names == label_columns] == [
        "2009-01 to 2009-12",
        "2010-01 to 2014-12",
    ]
    others = [names for names in labels.values() if names != label_columns]
    assert others == [{"store_and_fwd_flag"}] * 5


@each_version
@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_unknown_last_column_is_not_taken_for_a_renamed_one(
    service: Service, schema_version: SchemaVersion, by_name: bool, known: bool
) -> None:
    names = (*schema_version.header, "filename")
    header = match_header(
        names, service, by_name=by_name, month=find_last_month(schema_version) if known else None
    )
    assert (header.unknown, header.schema_version.header) == (("filename",), schema_version.header)
    assert name_columns(header) == name_columns(match_header(schema_version.header, service))


@pytest.mark.parametrize("end", [",", ",,,", ', "",', ", "])
def test_unnamed_last_columns_are_ignored(end: str) -> None:
    line = (",".join(YELLOW.header) + end).encode() + b"\r\n"
    assert parse_header_line(line, YELLOW) == match_header(YELLOW.header, YELLOW)


def test_every_column_has_a_description_and_first_month() -> None:
    for service in SERVICES.values():
        for column in service.columns:
            assert column.description
            assert service.get_first_month(column) >= service.first_month >= "2009-01"
    assert YELLOW.get_first_month(YELLOW.by_name["cbd_congestion_fee"]) == "2025-01"
    assert GREEN.get_first_month(GREEN.by_name["vendorid"]) == "2013-08"


def test_service_without_versions_has_the_columns_of_its_entry() -> None:
    service = Service("x", "When", (Column("a", "id", "a"), Column("When", "time", "w")))
    assert match_header(("A", "when"), service).absent == ()
    with pytest.raises(HeaderError, match="missing a"):
        match_header(("When",), service)


@pytest.mark.parametrize("by_name", [False, True])
def test_month_distinguishes_added_from_renamed_columns(by_name: bool) -> None:
    names = (*YELLOW.header[:-1], "surge")
    assert match_header(names, YELLOW, by_name=by_name, month=Month(2018, 12)).unknown == ("surge",)
    for month in (Month(2019, 1), Month(2023, 5)):
        with pytest.raises(HeaderError, match="missing congestion_surcharge; unknown 'surge'"):
            match_header(names, YELLOW, by_name=by_name, month=month)
    assert match_header(names[:-1], YELLOW, by_name=by_name, month=Month(2023, 5)).unknown == ()


@each_version
@pytest.mark.parametrize("more", [(), ("filename",)])
def test_column_of_later_years_makes_no_other_one_missing(
    service: Service, schema_version: SchemaVersion, more: tuple[str, ...]
) -> None:
    has = {
        service.by_name[name.strip().lower()]
        for name in schema_version.header
        if _is_known(name, service)
    }
    for column in service.columns:
        if column in has or column.kind == "time":
            continue
        for names in (
            (*schema_version.header, column.published, *more),
            (*more, *schema_version.header, column.published),
            (*schema_version.header[:6], *more, column.published, *schema_version.header[6:]),
        ):
            line = ",".join(names).encode() + b"\n"
            table = pa.table({name: pa.nulls(0) for name in names})
            for header, content in (
                (
                    match_header(names, service, month=find_last_month(schema_version)),
                    pa.py_buffer(line),
                ),
                (
                    match_header(
                        names, service, by_name=True, month=find_last_month(schema_version)
                    ),
                    table,
                ),
            ):
                assert header.unknown == more
                assert header.places[column.name] == names.index(column.published)
                stored = parse_stored_header(content, service)
                assert (stored.places, stored.labels) == (header.places, header.labels)


def _is_known(name: str, service: Service) -> bool:
    return name.strip().lower() in service.by_name


def test_comma_inside_a_quoted_name_does_not_separate() -> None:
    line = (",".join(YELLOW.header) + ', "where, exactly"').encode() + b"\r\n"
    header = parse_header_line(line, YELLOW)
    assert header.unknown == ("where, exactly",)
    assert len(header.names) == len(YELLOW.header) + 1


def test_header_time_is_linear_in_columns() -> None:
    names = (*YELLOW.header, *(f"c{number}" for number in range(40_000)))
    started = time.thread_time()
    assert len(match_header(names, YELLOW).unknown) == 40_000
    with pytest.raises(HeaderError, match="twice c39999"):
        match_header((*names, "c39999"), YELLOW)
    assert time.thread_time() - started < 5
