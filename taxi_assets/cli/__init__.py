"""The console command `taxi-assets`: plan, backfill, status, diff, quickstart, local.

What belongs here: reading arguments, planning runs from what the event log and the source say, and
showing the result. What does not: anything that a run needs; the command only starts runs.
"""
