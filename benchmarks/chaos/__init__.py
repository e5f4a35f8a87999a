"""Faults of one region under steady load, on real processes: `python -m benchmarks.chaos`."""
