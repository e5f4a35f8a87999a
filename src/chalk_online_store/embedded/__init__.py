"""The embedded engine: the same contract on SQLite, in process."""
