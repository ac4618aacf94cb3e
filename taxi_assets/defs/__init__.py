"""What Dagster shows: assets, checks, schedules, sensors, alerts, jobs, IO managers, resources.

A function that needs no Dagster belongs in `tlc`, `trips` or `report`. What needs a private name of
Dagster belongs in `dagster_internals`.
"""
