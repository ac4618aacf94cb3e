"""Connections to the source, the lake, Postgres and BigQuery, and the locks of months.

Code that opens and closes connections, and their configuration, belongs here. Code that reads or
writes partitions belongs in `io_managers`.
"""
