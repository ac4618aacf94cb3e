"""A month at a glance: its figures, and the page and picture that show them.

Nothing here knows Dagster or a store.
"""
