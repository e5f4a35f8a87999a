"""The account of a workload as one HTML page, which loads nothing."""
