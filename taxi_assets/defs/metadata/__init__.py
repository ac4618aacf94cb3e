"""Metadata on Dagster's pages: columns, owners, locations, and a day's tables and pictures.

Code that converts figures into Dagster's metadata values belongs here. Code that computes the
figures belongs in `trips` and `report`.
"""
