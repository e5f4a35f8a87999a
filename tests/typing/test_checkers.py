"""Users of pyright see the same types as those of mypy, which checks the whole project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

API = Path(__file__).with_name("api.py")


def test_pyright_agrees() -> None:
    """Every `assert_type` holds for it as well, and nothing else is an error but what is marked."""
    checker = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable]
    command = [*checker, "--level", "error", str(API)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=API.parents[2])
    assert done.returncode == 0, done.stdout
