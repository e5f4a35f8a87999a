"""What importing the package loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import chalk_online_store
from chalk_online_store.testing import Valkey

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
sys.modules["chalk_online_store.codec._kernels"] = None  # Importing it raises ImportError.
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


HEAVY = {"asyncio", "boto3", "botocore", "numpy", "redis", "sqlite3", "ssl", "urllib3"}


def test_declaring_a_schema_loads_nothing_heavy() -> None:
    """A module that declares features and names the stores imports none of the heavy packages."""
    names = "OnlineStore, AsyncOnlineStore, Vector, feature, features, OnlineStoreConfig"
    loaded = loaded_by(f"from chalk_online_store import {names}")
    assert not loaded & HEAVY
    assert len(loaded) < len(loaded_by("import redis"))


OPENED = """
import sys
from chalk_online_store import Feature, Namespace, OnlineStore, Vector
user = Namespace("user", int, [Feature("a", int), Feature("v", Vector[2]), Feature("t", bool)])
with OnlineStore.open("{url}", [user]) as store:
    before = set(sys.modules)
    store.write(user, [{{"id": 1, "a": 2, "v": [1, 2], "t": True}}])
    rows = store.read(user, [1, 2])
    rows.to_dict(), rows.to_numpy("v"), rows.statuses("a")
    print(*sorted(set(sys.modules) - before))
"""


def test_opening_a_store_loads_all_that_calls_need(url: str) -> None:
    """Calls import nothing: an import while serving delays a call, and in a fork it can hang."""
    command = [sys.executable, "-c", OPENED.format(url=url)]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == "\n"


VALKEY = """
import sys
from chalk_online_store import Feature, Namespace, OnlineStore
user = Namespace("user", int, [Feature("a", int)])
with OnlineStore.open("{url}", [user]) as store:
    store.write(user, [{{"id": 1, "a": 2}}])
    print(store.read(user, [1])[0]["a"], "redis" in sys.modules, "hiredis" in sys.modules)
"""


def test_valkey_needs_no_client_library(valkey: Valkey) -> None:
    """A Valkey store works without redis-py, so no version of it can break the store."""
    command = [sys.executable, "-c", VALKEY.format(url=valkey.url("imports:"))]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert printed == "2 False False\n"


def test_opening_sqlite_loads_no_client_of_another_engine() -> None:
    """A SQLite store needs neither boto3 nor TLS nor asyncio."""
    loaded = loaded_by(
        "from chalk_online_store import Feature, Namespace, OnlineStore;"
        " OnlineStore.open('sqlite://', [Namespace('user', int, [Feature('a', int)])]).close()"
    )
    assert not loaded & HEAVY - {"numpy", "sqlite3"}
