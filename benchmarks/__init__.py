"""What the store costs its client, beside every other client for Python: see README.md."""
