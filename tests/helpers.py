"""Helpers that tests share: how often attack tests repeat, and how a command is run."""

from __future__ import annotations

import os

import pytest

STRESS = float(os.environ.get("CHALK_STRESS", "1"))
"""Multiplies the rounds of every attack test; `make test-all` sets it."""


def stress(count: int) -> int:
    """Return the number of rounds, schedules or examples to run: `count` times CHALK_STRESS.

    `count` is what `make test` runs. The result is at least 1.
    """
    return max(1, round(count * STRESS))


def exit_status(*arguments: str) -> int:
    """Run the command line in this process, and return the status that it exits with."""
    from chalk_online_store.cli import main

    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)
