"""Statistics, charts and pages of a day and of a month.

Functions here take tables and return text or pictures. Where these are stored belongs in `defs`.
"""
