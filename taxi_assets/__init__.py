"""New York City's taxi trips, day by day, as Dagster software-defined assets."""

__version__ = "0.1.0"
