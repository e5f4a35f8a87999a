"""Tests that import Feast, which takes 8 seconds of CPU.

In a parallel run, `tests/test_feast_suite.py` runs them in one process of their own.
"""
