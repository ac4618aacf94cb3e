"""One IO manager for each storage target, and the partitions that they write and read.

An IO manager knows where a partition is stored and how. What a row means, and which rows stay,
belongs in the assets and in `trips`.
"""
