"""Dagster's objects: assets, checks, schedules, sensors, alerts, jobs, IO managers, resources.

Code that uses Dagster's public API belongs here. Functions that do not need Dagster belong in
`tlc`, `trips` or `report`; code that needs a private name of Dagster belongs in
`dagster_internals`.
"""
