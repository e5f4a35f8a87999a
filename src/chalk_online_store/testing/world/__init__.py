"""The process beside the tests that stands between the code under test and its engines.

It is started by path, not as a part of this package: its modules import each other, the standard
library and httptools, so that it is up in a tenth of a second. It has its own interpreter, so
that what it does takes nothing from the code whose latency is measured.
"""
