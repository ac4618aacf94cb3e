"""What starts runs: schedules, the sensor of new months, the sensor of monthly reports.

Alerts only watch runs and belong in `alerts`. The jobs that are started belong in `jobs`.
"""
