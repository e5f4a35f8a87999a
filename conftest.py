"""Run the Python code blocks of README.md and docs as tests, each document in one namespace.

A document starts in an empty directory, so that `sqlite:///features.db` lands there.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

pytest_plugins = ["chalk_online_store.testing.fixtures"]


def _enter_empty_directory(namespace: dict[str, Any]) -> None:
    namespace["__name__"] = "__main__"  # chalkpy looks at the module that uses a reference.
    namespace["_origin"] = Path.cwd()
    namespace["_directory"] = tempfile.TemporaryDirectory()
    os.chdir(namespace["_directory"].name)


def _leave_directory(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_origin"])
    namespace["_directory"].cleanup()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the blocks of a document, which share a namespace, in one process."""
    for item in items:
        if item.path.suffix == ".md":
            item.add_marker(pytest.mark.xdist_group(item.path.name))


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["*.md"],  # at any depth; `testpaths` says where
    setup=_enter_empty_directory,
    teardown=_leave_directory,
).pytest()
