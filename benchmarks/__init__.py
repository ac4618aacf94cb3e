"""How long a month takes, measured beside its floor: `python -m benchmarks`."""
