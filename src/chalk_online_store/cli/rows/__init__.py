"""Rows on the command line: `get`, `put` and `scan`."""
