"""Bulk work on real engines: `make test-distributed`."""
