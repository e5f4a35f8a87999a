"""Bloom filters that processes share through the table.

`log` is what lies there, `keeper` follows it and announces new entities, `reads` skips what is
surely absent, `snapshots` merges the log, and `build` makes a filter of what the table has.
"""
