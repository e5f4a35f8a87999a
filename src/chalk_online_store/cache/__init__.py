"""The cache in this process. Pure: time comes in as an argument."""
