"""Connections to the source, the lake, Postgres and BigQuery, and the locks of months.

A resource opens a connection and closes it. Reading and writing partitions belongs in
`io_managers`.
"""
