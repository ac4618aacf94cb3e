"""Dagster's own tests, run against our parts of Dagster beside a control run of the stock ones.

`python -m taxi_assets_tests.dagster_suites` downloads the source distribution of the installed
Dagster, whose `dagster_tests` hold the event log and run launcher to what users can see.
"""
