"""Helpers that tests share: how often attack tests repeat, and what is built once for a run."""

from __future__ import annotations

import os

STRESS = float(os.environ.get("CHALK_STRESS", "1"))
"""Multiplies the rounds of every attack test; `make test-all` sets it."""


def stress(count: int) -> int:
    """Return the number of rounds, schedules or examples to run: `count` times CHALK_STRESS.

    `count` is what `make test` runs. The result is at least 1.
    """
    return max(1, round(count * STRESS))
