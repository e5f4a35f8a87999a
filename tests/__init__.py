"""The tests; each says in one sentence what it proves."""
