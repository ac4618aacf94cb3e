"""The console command `taxi-assets`: plan, backfill, status, diff, quickstart, local and more.

Code that parses arguments, plans runs from the event log and the source, and prints results belongs
here. Code that a run needs does not, because the command only starts runs.
"""
