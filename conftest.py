"""Run the Python code blocks of README.md and docs as tests, each document in one namespace.

A document starts in an empty directory, so that `sqlite:///features.db` lands there.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

pytest_plugins = ["chalk_online_store.testing.fixtures"]

# Importing Feast takes a minute in a process that has many tests: see tests/test_feast_suite.py.
collect_ignore = ["docs/feast.md"] if "PYTEST_XDIST_WORKER" in os.environ else []


def _enter_empty_directory(namespace: dict[str, Any]) -> None:
    namespace["__name__"] = "__main__"  # chalkpy looks at the module that uses a reference.
    namespace["_origin"] = Path.cwd()
    namespace["_directory"] = tempfile.TemporaryDirectory()
    os.chdir(namespace["_directory"].name)


def _leave_directory(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_origin"])
    namespace["_directory"].cleanup()


@cache
def _shares_fixtures(path: str) -> bool:
    """Return True for documents, and for modules with a fixture that their tests share."""
    file = Path(__file__).parent / path
    return file.suffix == ".md" or 'scope="module"' in file.read_text()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep tests of one file in one process if they share fixtures; spread all others."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return path if _shares_fixtures(path) else nodeid

    return Scheduling(config, log) if config.getvalue("dist") == "loadscope" else None


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["*.md"],  # at any depth; `testpaths` says where
    setup=_enter_empty_directory,
    teardown=_leave_directory,
).pytest()
