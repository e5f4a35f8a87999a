"""The tests that import Feast, in one process: see `tests/feast`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FEAST = Path(__file__).parent / "feast"


@pytest.mark.slow
@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="They are collected here.")
def test_feast() -> None:
    """All tests of `tests/feast` pass."""
    variables = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, str(FEAST)], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
