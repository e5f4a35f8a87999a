"""The tests that import Feast, in one process.

Feast's modules are instrumented as they are imported. That takes 5 seconds in a new process, and a
minute in a worker of a parallel run that has collected all tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FEAST = [ROOT / "tests" / "feast", ROOT / "docs" / "feast.md"]


@pytest.mark.slow
@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="They are collected here.")
def test_feast() -> None:
    """All tests of `tests/feast` pass, and the code of docs/feast.md runs."""
    variables = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    done = subprocess.run(
        [*command, *FEAST], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
