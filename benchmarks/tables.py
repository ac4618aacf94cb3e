"""Format the printed tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.bench import Measured
from benchmarks.measure import Spread

MIB = 2**20
EMPTY = ("bare", "noop")
"""Runs without data."""


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table; the first column is left-aligned, the others are right-aligned."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(header))]

    def format_row(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return "| " + " | ".join(aligned) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([format_row(line) for line in (lines[0], rule, *lines[1:])])


def compute_spread(runs: Sequence[Measured], figure: str) -> Spread:
    """Return the spread of one figure over the repeats."""
    return Spread.of([getattr(run.sample, figure) for run in runs])


def format_costs(results: Mapping[str, Sequence[Measured]], file_rows: Mapping[str, int]) -> str:
    """Format the cost of each command, compared with the baseline and minus the no-op."""
    header = (
        "run", "wall s", "x baseline", "data work s", "x baseline's", "CPU s", "servers' CPU s",
        "peak RSS MiB", "rows/s", "others, cores",
    )  # fmt: skip
    baseline = _middle(results, "baseline")
    noop = _middle(results, "noop")
    baseline_stages = (
        median([sum(run.stages.values()) for run in results["baseline"]]) if baseline else 0.0
    )
    rows: list[list[str]] = []
    for name, runs in results.items():
        wall = compute_spread(runs, "wall")
        work = baseline_stages if name == "baseline" else max(0.0, wall.middle - noop)
        is_month = name in file_rows
        rows.append(
            [
                name,
                wall.text(),
                f"{wall.middle / baseline:.2f}" if baseline and is_month else "-",
                f"{work:.2f}" if (noop or name == "baseline") and name not in EMPTY else "-",
                f"{work / baseline_stages:.2f}" if baseline and noop and is_month else "-",
                compute_spread(runs, "cpu").text(),
                compute_spread(runs, "servers").text(),
                f"{compute_spread(runs, 'rss').middle / MIB:,.0f}",
                f"{file_rows[name] / wall.middle:,.0f}" if is_month else "-",
                compute_spread(runs, "others").text(),
            ]
        )
    return format_table(header, rows)


def format_stages(results: Mapping[str, Sequence[Measured]]) -> str:
    """Format the seconds of each stage, with one column per command."""
    longest_first = sorted(results.values(), key=lambda runs: -len(runs[0].stages))
    names = list(dict.fromkeys(stage for runs in longest_first for stage in runs[0].stages))
    rows = [
        [
            stage,
            *(
                Spread.of([run.stages[stage] for run in runs]).text()
                if stage in runs[0].stages
                else "-"
                for runs in results.values()
            ),
        ]
        for stage in names
    ]
    return format_table(("stage, s", *results), rows)


def format_growth(results: Mapping[int, Sequence[Measured]], noop: float, rows: int) -> str:
    """Format the cost of a run by its number of months."""
    header = (
        "months in one run", "wall s", "data work s a month", "rows/s", "CPU s",
        "servers' CPU s", "peak RSS MiB", "x the first's", "others, cores",
    )  # fmt: skip
    memory = {
        months: Spread.of([run.sample.rss / MIB for run in runs])
        for months, runs in results.items()
    }
    first = next(iter(memory.values())).middle
    lines = [
        [
            str(months),
            compute_spread(runs, "wall").text(),
            f"{(compute_spread(runs, 'wall').middle - noop) / months:.2f}",
            f"{rows * months / compute_spread(runs, 'wall').middle:,.0f}",
            compute_spread(runs, "cpu").text(),
            compute_spread(runs, "servers").text(),
            memory[months].text(0),
            f"{memory[months].middle / first:.2f}",
            compute_spread(runs, "others").text(),
        ]
        for months, runs in results.items()
    ]
    return format_table(header, lines)


def format_years(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the rewrite of a day in Postgres tables of growing size."""
    header = (
        "months in the table",
        "days",
        "rows",
        "MiB",
        "rewrite of a day, s",
        "times the first",
    )
    middles = {months: Spread.of(table["seconds"]) for months, table in results.items()}
    first = next(iter(middles.values())).middle
    lines = [
        [
            months,
            str(table["days"]),
            f"{table['rows']:,}",
            f"{table['bytes'] / MIB:,.0f}",
            middles[months].text(3),
            f"{middles[months].middle / first:.2f}",
        ]
        for months, table in results.items()
    ]
    return format_table(header, lines)


def _middle(results: Mapping[str, Sequence[Measured]], name: str) -> float:
    return compute_spread(results[name], "wall").middle if results.get(name) else 0.0
