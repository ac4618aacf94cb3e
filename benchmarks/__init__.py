"""How long a month takes, measured beside its baseline: `python -m benchmarks`."""
