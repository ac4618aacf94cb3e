"""One IO manager for each storage target, and the partitions that they write and read.

Code that decides where and how a partition is stored belongs here. Code that interprets or selects
rows belongs in the assets and in `trips`.
"""
