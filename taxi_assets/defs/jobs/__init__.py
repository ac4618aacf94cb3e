"""Jobs: a service's daily job, and three jobs of one op: SQL, an object's content, an export.

Jobs and their ops belong here. Code that starts jobs belongs in `automation`.
"""
