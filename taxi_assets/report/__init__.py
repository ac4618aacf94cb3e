"""Statistics, charts and pages of a day and of a month.

Functions that turn tables and figures into text, HTML or pictures belong here. Code that reads or
stores them belongs in `defs`.
"""
