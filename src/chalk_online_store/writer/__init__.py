"""The persistence writer: rows are handed over in microseconds, and reach the table later."""
