"""Everything that leans on private names of Dagster.

Code that uses Dagster's public API belongs in `defs`. docs/dagster-internals.md lists each private
name, why it is needed, and the test that fails when it changes.
"""
