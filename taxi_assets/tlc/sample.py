"""Synthetic months in TLC's CSV format, with TLC's data errors and identical bytes everywhere.

They replace the published files in the default profile, in tests and in benchmarks. Values come
from uniform draws, table look-ups and integer arithmetic only, so a file depends on the service,
the month and the number of rows, and not on the platform.
"""

from __future__ import annotations

import gzip
from datetime import date
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import PCG64, Generator
from numpy.typing import NDArray

from taxi_assets.date_ranges import ONE_DAY, Month
from taxi_assets.tlc import services as tlc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from taxi_assets.tlc.column import Column
    from taxi_assets.tlc.schema import Service

Ints = NDArray[np.int64]
Trips = dict[str, Ints]

LABEL = "synthetic sample"
"""Shown with every display of sample rows, so that nobody takes them for real trips."""

BLOCK = 1 << 17
"""Rows in memory at once; a change of it changes the bytes of the file."""
DAY = 86_400


def _build_weighted_table(weights: dict[int, int]) -> Ints:
    return np.repeat(np.array(list(weights), np.int64), list(weights.values()))


def _build_quantile_table(*knots: tuple[int, int]) -> Ints:
    """Build an inverse distribution from (cumulative per mille, value), linear in between."""
    steps = [(high - low, low, to - at) for (at, low), (to, high) in pairwise(knots)]
    return np.concatenate([low + rise * np.arange(n) // n for rise, low, n in steps])


# fmt: off
HOURS = np.repeat(np.arange(24), (
    11, 7, 5, 3, 3, 6, 18, 34, 46, 48, 49, 54, 59, 62, 68, 72, 73, 75, 69, 53, 39, 32, 27, 19))
WEEKDAYS = (95, 100, 102, 105, 108, 102, 88)
EXTRA_OF_HOUR = np.array([[50] * 6 + [0] * 10 + [rush] * 4 + [50] * 4 for rush in (100, 0)])
VENDORS = _build_weighted_table({1: 3, 2: 7})
PASSENGER_COUNTS = _build_weighted_table({0: 21, 1: 739, 2: 144, 3: 38, 4: 15, 5: 26, 6: 17})
RATE_CODES = _build_weighted_table({1: 972, 2: 15, 3: 2, 4: 2, 5: 8, 99: 1})
JFK, NEGOTIATED = 2, 5
PAYMENTS = _build_weighted_table({1: 73, 2: 26, 3: 1})
CARD, DISPUTE = 1, 4
BUSY_ZONES = {41, 42, 48, 74, 75, 95, 141, 142, 161, 162, 166, 170, 186, 234, 236, 237}
ZONES = _build_weighted_table({zone: 40 if zone in BUSY_ZONES else 1 for zone in range(1, 266)})
HUNDREDTHS_OF_MILES = _build_quantile_table(
    (0, 0), (12, 10), (50, 50), (250, 100), (500, 170), (750, 300), (900, 720), (1000, 2500))
WAITING_SECONDS = _build_quantile_table(
    (0, 20), (250, 150), (500, 250), (750, 420), (950, 840), (1000, 3000)
)
SECONDS_PER_MILE = 156
TOLL_FROM = 900
TIP_PER_MILLE = _build_quantile_table(
    (0, 0), (60, 1), (70, 100), (300, 195), (750, 200), (1000, 500))
CONGESTION_CENTS = _build_weighted_table({250: 9, 0: 1})
OTHER_FEES = _build_weighted_table({0: 2, 125: 1})
OTHER_CODES = _build_weighted_table({2: 9, 1: 1})
# fmt: on


def _draw_below(rng: Generator, end: int, n: int) -> Ints:
    return (rng.random(n) * end).astype(np.int64)


def _draw_choice(rng: Generator, table: Ints, n: int) -> Ints:
    return table[_draw_below(rng, len(table), n)]


def write_sample_month(service: Service, month: Month, path: Path, rows: int | None = None) -> None:
    """Write a month of synthetic trips to `path` as gzipped CSV.

    `rows` defaults to a small month, with some hundred trips a day. `path` is written in place: for
    an atomic write, pass a temporary name and rename the file.
    """
    if rows is None:
        rows = _get_daily_trips(service)[0] * len(month.window)
    rng = Generator(PCG64([month.year, month.month, *service.name.encode()]))
    with path.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        for text in _format_texts(rng, service, month, rows):
            packed.write(text.encode())


def _get_daily_trips(service: Service) -> tuple[int, float]:
    """Return the number of trips per day, and the share without values that only a meter records.

    A service with dispatched trips has a smaller fleet and reports less.
    """
    return (135, 0.4) if "hail" in service.by_role else (200, 0.07)


def _format_texts(rng: Generator, service: Service, month: Month, rows: int) -> Iterator[str]:
    """Yield the header, then blocks of lines: metered trips first, the others at the end."""
    yield ",".join(service.sample_header) + "\n"
    unmetered = round(rows * _get_daily_trips(service)[1])
    never, blank = (
        frozenset(column.name for column in service.columns if column.filled in kinds)
        for kinds in (("never",), ("never", "mostly"))
    )
    for metered, n in ((True, rows - unmetered), (False, unmetered)):
        blanks = never if metered else blank
        pickups = _draw_pickups(rng, month, n)
        if metered:
            _move_outside_month(rng, month, pickups)
        for at in range(0, n, BLOCK):
            trips = _draw_trips(rng, service, pickups[at : at + BLOCK])
            texts = [
                _format_values(column, trips[column.name], blanks)
                for column in service.sample_columns
            ]
            yield "\n".join(map(",".join, zip(*texts, strict=True))) + "\n"


def _to_epoch_seconds(day: date) -> int:
    return (day - date(1970, 1, 1)).days * DAY


def _draw_pickups(rng: Generator, month: Month, n: int) -> Ints:
    """Draw pickups in seconds since 1970; as in real files, their order varies by 40 minutes."""
    days = _build_weighted_table(
        {_to_epoch_seconds(day): WEEKDAYS[day.weekday()] for day in month.window}
    )
    pickups = (
        _draw_choice(rng, days, n) + _draw_choice(rng, HOURS, n) * 3600 + _draw_below(rng, 3600, n)
    )
    return pickups[np.argsort(pickups + _draw_below(rng, 2400, n), kind="stable")]


def _move_outside_month(rng: Generator, month: Month, pickups: Ints) -> None:
    """Move a few pickups out of the month, to the days that wrong clocks produce."""
    window = month.window
    outside = {date(2008, 12, 31), date(2009, 1, 1), window.start - ONE_DAY}
    outside |= {window.end, window.end + ONE_DAY}
    days = [_to_epoch_seconds(day) for day in sorted(outside) if day not in window]
    moved = np.repeat(np.array(days, np.int64), 1 + len(pickups) // 200_000)[: len(pickups)]
    places = np.argsort(_draw_below(rng, 1 << 40, len(pickups)), kind="stable")[: len(moved)]
    pickups[places] = moved + _draw_below(rng, DAY, len(moved))


def _draw_trips(rng: Generator, service: Service, pickups: Ints) -> Trips:
    """Draw the columns of `service` by name: seconds, hundredths of miles, cents, codes, flags."""
    n = len(pickups)
    rates = _draw_choice(rng, RATE_CODES, n)
    miles = _draw_choice(rng, HUNDREDTHS_OF_MILES, n) + np.where(rates == JFK, 1500, 0)
    seconds = miles * SECONDS_PER_MILE // 100 + _draw_choice(rng, WAITING_SECONDS, n)
    seconds = np.where(_draw_below(rng, 400, n) == 0, DAY - _draw_below(rng, 2400, n), seconds)
    seconds = np.where(_draw_below(rng, 500, n) == 0, -1 - _draw_below(rng, 3600, n), seconds)
    void = _draw_below(rng, 200, n) == 0
    trips = {
        service.pickup_column: pickups,
        tlc.VENDOR.name: _draw_choice(rng, VENDORS, n),
        service.find_role("passengers") or tlc.PASSENGERS.name: _draw_choice(
            rng, PASSENGER_COUNTS, n
        ),
        tlc.RATE_CODE.name: rates,
        tlc.PICKUP_ZONE.name: _draw_choice(rng, ZONES, n),
        tlc.DROPOFF_ZONE.name: _draw_choice(rng, ZONES, n),
        tlc.PAYMENT.name: np.where(void, DISPUTE, _draw_choice(rng, PAYMENTS, n)),
        **_compute_fares(rng, pickups, rates, miles, seconds),
    }
    for column in (*service.by_role.get("fare", ()), *service.by_role.get("pay", ())):
        trips.setdefault(column.name, trips[tlc.FARE.name])
    after_pickup = False
    for column in service.sample_columns:
        after_pickup |= column.name == service.pickup_column
        if column.name not in trips:
            sign = 1 if after_pickup or column.kind != "time" else -1
            trips[column.name] = _draw_plausible_values(
                rng, column, pickups + sign * seconds, miles
            )
            if column.unit == "seconds":
                trips[column.name] = seconds
    _settle_payment(rng, service, trips, void)
    return trips


def _draw_plausible_values(rng: Generator, column: Column, times: Ints, miles: Ints) -> Ints:
    """Draw values for a column by its kind alone."""
    n = len(times)
    match column.kind:
        case "time":
            return times
        case "amount":
            return _draw_choice(rng, OTHER_FEES, n) if column.unit == tlc.FARE.unit else miles
        case "text" if column.examples:
            return _draw_below(rng, len(column.examples), n)
        case "id" | "text":
            return _draw_choice(rng, OTHER_CODES, n)


def _compute_fares(rng: Generator, pickups: Ints, rates: Ints, miles: Ints, seconds: Ints) -> Trips:
    """Compute the parts of the total in cents, before the tip."""
    n = len(pickups)
    weekend = (pickups // DAY + 3) % 7 // 5  # 1970-01-01 was a Thursday
    units = miles // 20 + np.clip(seconds, 0, 7200) // 240
    fare = np.where(rates == NEGOTIATED, 1 + _draw_below(rng, 9000, n), 250 + units * 50)
    toll = (rates == JFK) | ((miles > TOLL_FROM) & (_draw_below(rng, 3, n) == 0))
    return {
        tlc.FARE.name: np.where(rates == JFK, 5200, fare),
        tlc.EXTRA.name: EXTRA_OF_HOUR[weekend, pickups // 3600 % 24],
        tlc.MTA_TAX.name: np.where(rates == NEGOTIATED, 0, 50),
        tlc.TOLLS.name: np.where(toll, 612, 0),
        tlc.IMPROVEMENT.name: np.full(n, 30),
        tlc.CONGESTION.name: _draw_choice(rng, CONGESTION_CENTS, n),
    }


def _settle_payment(
    rng: Generator, service: Service, trips: Trips, void: NDArray[np.bool_]
) -> None:
    """Add the tip and the total of the published amounts, and negate void trips."""
    published = {column.name for column in service.sample_columns if column.unit == tlc.FARE.unit}
    never = {column.name for column in service.columns if column.filled == "never"}
    parts = sorted(published - never - {tlc.TIP.name, tlc.TOTAL.name})
    before_tip = sum((trips[part] for part in parts), np.zeros(len(void), np.int64))
    tipped = (trips[tlc.PAYMENT.name] == CARD) & (tlc.TIP.name in published)
    per_mille = _draw_choice(rng, TIP_PER_MILLE, len(void))
    trips[tlc.TIP.name] = np.where(tipped, before_tip * per_mille // 1000, 0)
    trips[tlc.TOTAL.name] = before_tip + trips[tlc.TIP.name]
    for amount in (*parts, tlc.TOTAL.name):
        trips[amount] = np.where(void, -trips[amount], trips[amount])


def _format_values(column: Column, values: Ints, blanks: frozenset[str]) -> Iterable[str]:
    """Format the values of a column as TLC does."""
    if column.name in blanks:
        return [""] * len(values)
    match column.kind:
        case "time":
            days, at = np.unique(values // DAY, return_inverse=True)
            texts = days.astype("datetime64[D]").astype(str).astype(object)
            return (texts[at] + _format_clocks()[values % DAY]).tolist()
        case "amount":
            return map(
                _format_money if column.unit == tlc.FARE.unit else _format_miles, values.tolist()
            )
        case "id":
            return map(_format_flag if "shared" in column.roles else str, values.tolist())
        case "text":
            examples = column.examples or ("N", "Y")
            return map(examples.__getitem__, (values % len(examples)).tolist())


@cache
def _format_clocks() -> NDArray[np.object_]:
    """Format all seconds of a day once: formatting every value takes 2 s for a million rows."""
    clocks = (f" {s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}" for s in range(DAY))
    return np.array(list(clocks), np.object_)


def _format_flag(value: int) -> str:
    """Return 1 or an empty text, as TLC marks shared rides."""
    return "1" if value == 1 else ""


@cache
def _format_money(cents: int) -> str:
    """Format the shortest decimal: 8, 11.8, -2.5."""
    dollars = f"{abs(cents) // 100}.{abs(cents) % 100:02d}".rstrip("0").rstrip(".")
    return f"-{dollars}" if cents < 0 else dollars


@cache
def _format_miles(hundredths: int) -> str:
    """Format two decimals without a leading zero: 2.10, .20."""
    return f"{hundredths // 100 or ''}.{hundredths % 100:02d}"
