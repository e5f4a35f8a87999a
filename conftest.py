"""Run the Python code blocks of README.md and docs as tests, each document in one namespace.

A document starts in an empty directory, so that `sqlite:///features.db` lands there.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

pytest_plugins = ["chalk_online_store.testing.fixtures"]


def _enter_empty_directory(namespace: dict[str, Any]) -> None:
    namespace["_origin"] = Path.cwd()
    namespace["_directory"] = tempfile.TemporaryDirectory()
    os.chdir(namespace["_directory"].name)


def _leave_directory(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_origin"])
    namespace["_directory"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["*.md"],  # at any depth; `testpaths` says where
    setup=_enter_empty_directory,
    teardown=_leave_directory,
).pytest()
