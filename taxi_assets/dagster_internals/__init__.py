"""All code that depends on private names of Dagster.

Code that uses Dagster's public API alone belongs in `defs`. docs/dagster-internals.md lists each
private name, its reason, and the test that fails when it changes.
"""
