"""Type checkers: mypy on the whole project, and pyright on the public API as users see it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

API = Path(__file__).with_name("api.py")
MISTAKES = API.with_name("mistakes.py")
ROOT = API.parents[2]

pytestmark = pytest.mark.slow


def check(*command: str) -> None:
    """Run a checker's module; what it prints is the reason of a failure."""
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_finds_nothing() -> None:
    """The strict check of the project, as `make lint` runs it, passes."""
    check("mypy")


def test_pyright_agrees() -> None:
    """Every `assert_type` holds for it as well, and nothing else is an error but what is marked."""
    check("basedpyright", "--pythonpath", sys.executable, "--level", "error", str(API))


def test_pyright_finds_every_mistake() -> None:
    """Pyright reports an error for each marked line, and for no other."""
    command = ["basedpyright", "--pythonpath", sys.executable, "--level", "error", "--outputjson"]
    done = subprocess.run(
        [sys.executable, "-m", *command, str(MISTAKES)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    marked = {
        number
        for number, line in enumerate(MISTAKES.read_text().splitlines(), 1)
        if "# type: ignore" in line
    }
    assert {error["range"]["start"]["line"] + 1 for error in found} == marked
