"""Pure transforms of one day's rows: parse, clean, rules, profile, content hash.

They work on buffers, Arrow tables and frames. Files, stores and Dagster belong elsewhere.
"""
