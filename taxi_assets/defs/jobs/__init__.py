"""Jobs: of a service's days and reports, and three of one op: SQL, an object's content, an export.

Jobs and their ops belong here. Code that starts jobs belongs in `automation`.
"""
