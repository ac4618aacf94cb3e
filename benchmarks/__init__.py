"""Measure how long a month takes, and compare it with a baseline: `python -m benchmarks`."""
