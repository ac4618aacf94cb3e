"""Jobs: a service's daily job, and the three of one op: SQL, an object's content, an export.

A job's ops are defined here. What starts a job on its own belongs in `automation`.
"""
