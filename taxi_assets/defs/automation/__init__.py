"""Automation: schedules, the sensors of new months and of monthly reports, and run retention.

Code that starts runs without a person, or deletes old ones, belongs here. Code that only observes
runs belongs in `alerts`; the jobs belong in `jobs`.
"""
