"""Metadata that Dagster's pages show: columns, owners, places, tables and pictures of a day.

Numbers are computed in `trips` and `report`. Here they become Dagster's metadata values.
"""
