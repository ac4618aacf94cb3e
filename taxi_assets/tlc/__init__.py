"""The files of TLC, the Taxi & Limousine Commission: services, schemas, download and readers.

Code about the form or the location of a published file belongs here. Code that transforms a day's
rows belongs in `trips`. Nothing here imports Dagster.
"""
