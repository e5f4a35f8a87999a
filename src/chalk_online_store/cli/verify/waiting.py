"""Waiting for a condition, by polling."""

from __future__ import annotations

import time
from collections.abc import Callable

_FIRST_PAUSE_SECONDS, _PAUSE_SHARE = 0.02, 0.1
"""Pauses between reads: a lag is measured to a tenth, by a few dozen reads."""


def wait_until(is_done: Callable[[], bool], seconds: float) -> float | None:
    """Wait for a condition, and return the seconds that it took; None after `seconds`."""
    began = time.monotonic()
    while not is_done():
        passed = time.monotonic() - began
        if passed >= seconds:
            return None
        time.sleep(max(_FIRST_PAUSE_SECONDS, passed * _PAUSE_SHARE))
    return time.monotonic() - began
