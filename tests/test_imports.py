"""What importing the package loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import chalk_online_store

MODULES = "import sys; before = set(sys.modules); {}; print(*sorted(set(sys.modules) - before))"


def loaded_by(statement: str) -> set[str]:
    """The modules that a statement loads into a new interpreter."""
    command = [sys.executable, "-c", MODULES.format(statement)]
    return set(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())


def test_importing_the_package_loads_none_of_its_parts() -> None:
    """`import chalk_online_store` loads the package module and nothing of its dependencies."""
    loaded = loaded_by("import chalk_online_store")
    assert {name for name in loaded if name.startswith("chalk_online_store")} == {
        "chalk_online_store"
    }
    assert not loaded & {"asyncio", "boto3", "botocore", "msgspec", "numpy", "sqlite3"}


def test_importing_an_error_loads_no_store() -> None:
    """A process that only catches our errors does not load the store."""
    loaded = loaded_by("from chalk_online_store import OnlineStoreError")
    ours = {name for name in loaded if name.startswith("chalk_online_store")}
    assert ours <= {f"chalk_online_store{part}" for part in ("", ".errors", ".report")}


@pytest.mark.parametrize("name", chalk_online_store.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    """Each name of `__all__` is imported on first use and listed by `dir`."""
    assert getattr(chalk_online_store, name) is not None
    assert name in dir(chalk_online_store)


def test_the_names_at_run_time_are_those_that_type_checkers_see() -> None:
    """The imports under TYPE_CHECKING and the table of lazy names have the same entries."""
    tree = ast.parse(Path(chalk_online_store.__file__).read_text())
    checked = {
        (alias.name, f"{node.module}")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("chalk_online_store")
        for alias in node.names
    }
    lazy = {
        (name, f"chalk_online_store.{module}")
        for name, module in chalk_online_store._MODULES.items()
    }
    assert checked == lazy
    assert {name for name, _ in lazy} == set(chalk_online_store.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt public name raises AttributeError, as in any module."""
    with pytest.raises(AttributeError, match="has no attribute 'OnlineStor'"):
        chalk_online_store.OnlineStor  # type: ignore[attr-defined] # noqa: B018


WITHOUT_C = """
import logging, sys
sys.modules["chalk_online_store.codec._decoder"] = None  # Importing it raises ImportError.
logging.basicConfig(level="INFO", format="%(levelname)s %(event.name)s", stream=sys.stdout)
from chalk_online_store import Feature, Namespace, OnlineStore, compiled
user = Namespace("user", int, [Feature("a", int)])
for _ in range(2):
    with OnlineStore.open("sqlite://", [user]) as store:
        store.write(user, [{"id": 1, "a": 2}])
        assert store.read(user, [1])[0]["a"] == 2
print(compiled)
"""


def test_without_the_compiled_decoder_the_store_works_and_says_so_once() -> None:
    """An installation without the C part logs one INFO line and reads the same values."""
    command = [sys.executable, "-c", WITHOUT_C]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert printed.splitlines() == ["INFO chalk.online_store.compiled.absent", "False"]
