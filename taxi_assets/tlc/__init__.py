"""Files of TLC, the Taxi & Limousine Commission: services, schema versions, download, readers.

A module here knows how TLC publishes and where a file is. What happens to a day's rows after they
were read belongs in `trips`; nothing here imports Dagster.
"""
