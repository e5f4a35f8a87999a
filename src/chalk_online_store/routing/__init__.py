"""Which region is asked: health, choice, hedging, replication lag. Pure: time is an argument."""
