"""Pure transforms of one day's rows: parse, clean, apply rules, profile, hash, compare.

Functions of buffers, Arrow tables and frames belong here. Code that opens a file or a connection,
or that depends on Dagster, belongs in `tlc`, `report` or `defs`.
"""
