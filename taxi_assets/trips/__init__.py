"""Pure functions on files, lines, tables and frames; no Dagster, no client of a store."""
