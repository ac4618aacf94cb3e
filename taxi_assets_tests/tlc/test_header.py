"""Which column a published name is, in every era."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.header import Header, HeaderError, header_of, header_of_line, header_of_slice
from taxi_assets.tlc.schema import Column, Era, Service
from taxi_assets.tlc.services import GREEN, SERVICES, YELLOW

ERAS = [(service, era) for service in SERVICES.values() for era in service.eras]
each_era = pytest.mark.parametrize(
    ("service", "era"), ERAS, ids=[f"{service.name} {era.months}" for service, era in ERAS]
)


def last_month(era: Era) -> Month:
    year, month = era.months.split(" ")[-1].split("-")
    return Month(int(year), int(month))


def columns_of(header: Header) -> list[str]:
    return [column.name for column in header.columns if column]


@each_era
def test_the_header_of_an_era_is_known_by_itself(service: Service, era: Era) -> None:
    header = header_of(era.header, service)
    assert header.era.months == era.months or header.era.header == era.header
    assert header.unknown == ()
    assert len(header.raw_only) in (0, 4)
    assert set(service.required) <= set(columns_of(header))
    assert sorted([*columns_of(header), *header.absent]) == sorted(service.arrow_schema.names)


@each_era
def test_blanks_case_and_quotes_of_names_tell_nothing(service: Service, era: Era) -> None:
    plain = header_of(era.header, service)
    for spelled in (
        ", ".join(era.header),
        ",".join(name.upper() for name in era.header),
        ",".join(f'"{name.strip()}"' for name in era.header),
    ):
        line = b"\xef\xbb\xbf" + spelled.encode() + b"\r\n"
        found = header_of_line(line, service)
        assert (columns_of(found), found.labels) == (columns_of(plain), plain.labels)


@each_era
def test_a_renamed_column_is_refused_naming_both(service: Service, era: Era) -> None:
    for at, name in enumerate(era.header):
        renamed = (*era.header[:at], "renamed", *era.header[at + 1 :])
        column = service.by_name.get(name.strip().lower())
        if era.parquet and column is service.columns[-1]:
            continue  # of that one nobody can tell that it is not another new column
        if name.strip().lower() == "airport_fee":
            continue
        for by_name in (False, True):
            with pytest.raises(HeaderError, match=rf"missing {name.strip()}.*; unknown 'renamed'"):
                header_of(renamed, service, by_name=by_name, month=last_month(era))


@each_era
def test_a_column_that_csv_lacks_is_refused_and_one_that_parquet_lacks_is_null(
    service: Service, era: Era
) -> None:
    extra = era.header.index(next(n for n in era.header if n.lower().startswith("mta")))
    less = (*era.header[:extra], *era.header[extra + 1 :])
    with pytest.raises(HeaderError, match=r"(?i)missing mta_tax"):
        header_of(less, service)
    assert "mta_tax" in header_of(less, service, by_name=True).absent
    for required in service.required:
        kept = tuple(
            name
            for name in era.header
            if service.by_name.get(name.strip().lower()) is None
            or service.by_name[name.strip().lower()].name != required
        )
        with pytest.raises(HeaderError, match="missing"):
            header_of(kept, service, by_name=True)


@each_era
def test_order_tells_only_where_columns_have_no_names(service: Service, era: Era) -> None:
    turned = (*era.header[1:], era.header[0])
    with pytest.raises(HeaderError, match="in another order: column 1 is"):
        header_of(turned, service)
    assert sorted(columns_of(header_of(turned, service, by_name=True))) == sorted(
        columns_of(header_of(era.header, service))
    )


@pytest.mark.parametrize("at", [0, 5, 18])
def test_a_column_never_seen_before_is_unknown_wherever_it_stands(at: int) -> None:
    names = [*YELLOW.header]
    names.insert(at, "surge_fee")
    header = header_of(tuple(names), YELLOW)
    assert header.unknown == ("surge_fee",)
    assert header.pickup_index == names.index("tpep_pickup_datetime")
    assert columns_of(header) == [column.name for column in YELLOW.header_columns]


def test_places_before_zones_stay_in_raw() -> None:
    header = header_of(YELLOW.eras[0].header, YELLOW)
    assert header.raw_only == ("Start_Lon", "Start_Lat", "End_Lon", "End_Lat")
    assert {"pulocationid", "dolocationid"} <= set(header.absent)


def test_ids_are_labels_in_yellow_until_2014_and_the_flag_is_one_always() -> None:
    labels = {era.months: set(header_of(era.header, YELLOW).labels) for era in YELLOW.eras}
    spoken = {"vendorid", "payment_type", "store_and_fwd_flag"}
    assert [months for months, found in labels.items() if found == spoken] == [
        "2009-01 to 2009-12",
        "2010-01 to 2014-12",
    ]
    others = [found for found in labels.values() if found != spoken]
    assert others == [{"store_and_fwd_flag"}] * 5


@each_era
@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_an_unknown_column_at_the_end_is_never_taken_for_a_renamed_one(
    service: Service, era: Era, by_name: bool, known: bool
) -> None:
    names = (*era.header, "filename")
    header = header_of(names, service, by_name=by_name, month=last_month(era) if known else None)
    assert (header.unknown, header.era.header) == (("filename",), era.header)
    assert columns_of(header) == columns_of(header_of(era.header, service))


@pytest.mark.parametrize("end", [",", ",,,", ', "",', ", "])
def test_columns_without_a_name_at_the_end_are_none(end: str) -> None:
    line = (",".join(YELLOW.header) + end).encode() + b"\r\n"
    assert header_of_line(line, YELLOW) == header_of(YELLOW.header, YELLOW)


def test_every_column_says_what_it_is_and_since_when() -> None:
    for service in SERVICES.values():
        for column in service.columns:
            assert column.description
            assert service.since(column) >= service.first_month >= "2009-01"
    assert YELLOW.since(YELLOW.by_name["cbd_congestion_fee"]) == "2025-01"
    assert GREEN.since(GREEN.by_name["vendorid"]) == "2013-08"


def test_a_service_without_eras_has_the_columns_of_its_entry() -> None:
    service = Service("x", "When", (Column("a", "id", "a"), Column("When", "time", "w")), None)
    assert header_of(("A", "when"), service).absent == ()
    with pytest.raises(HeaderError, match="missing a"):
        header_of(("When",), service)


@pytest.mark.parametrize("by_name", [False, True])
def test_the_month_tells_a_column_more_from_a_renamed_one(by_name: bool) -> None:
    names = (*YELLOW.header[:-1], "surge")
    assert header_of(names, YELLOW, by_name=by_name, month=Month(2018, 12)).unknown == ("surge",)
    for month in (Month(2019, 1), Month(2023, 5)):
        with pytest.raises(HeaderError, match="missing congestion_surcharge; unknown 'surge'"):
            header_of(names, YELLOW, by_name=by_name, month=month)
    assert header_of(names[:-1], YELLOW, by_name=by_name, month=Month(2023, 5)).unknown == ()


@each_era
@pytest.mark.parametrize("more", [(), ("filename",)])
def test_a_column_of_later_years_makes_no_other_one_missing(
    service: Service, era: Era, more: tuple[str, ...]
) -> None:
    has = {service.by_name[name.strip().lower()] for name in era.header if _is_known(name, service)}
    for column in service.columns:
        if column in has or column.kind == "time":
            continue
        for names in (
            (*era.header, column.published, *more),
            (*more, *era.header, column.published),
            (*era.header[:6], *more, column.published, *era.header[6:]),
        ):
            line = ",".join(names).encode() + b"\n"
            table = pa.table({name: pa.nulls(0) for name in names})
            for header, content in (
                (header_of(names, service, month=last_month(era)), pa.py_buffer(line)),
                (header_of(names, service, by_name=True, month=last_month(era)), table),
            ):
                assert header.unknown == more
                assert header.places[column.name] == names.index(column.published)
                stored = header_of_slice(content, service)
                assert (stored.places, stored.labels) == (header.places, header.labels)


def _is_known(name: str, service: Service) -> bool:
    return name.strip().lower() in service.by_name


def test_a_comma_inside_a_quoted_name_separates_nothing() -> None:
    line = (",".join(YELLOW.header) + ', "where, exactly"').encode() + b"\r\n"
    header = header_of_line(line, YELLOW)
    assert header.unknown == ("where, exactly",)
    assert len(header.names) == len(YELLOW.header) + 1


def test_the_time_for_many_columns_does_not_grow_with_their_square() -> None:
    names = (*YELLOW.header, *(f"c{at}" for at in range(40_000)))
    began = time.thread_time()
    assert len(header_of(names, YELLOW).unknown) == 40_000
    with pytest.raises(HeaderError, match="twice c39999"):
        header_of((*names, "c39999"), YELLOW)
    assert time.thread_time() - began < 5
