"""Fixtures for pytest: name this module in your top `conftest.py`.

```python
pytest_plugins = ["chalk_online_store.testing.fixtures"]
```
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chalk_online_store.testing.engines import Dynoxide, Ministack, Moto
from chalk_online_store.testing.helper import World
from chalk_online_store.testing.local_global_table import LocalGlobalTable
from chalk_online_store.testing.proxy import FaultProxy, ValkeyFaultProxy
from chalk_online_store.testing.valkey import Valkey


@pytest.fixture(scope="session")
def dynoxide() -> Iterator[Dynoxide]:
    """One engine in memory for the whole session: let each test create its own table."""
    with Dynoxide() as engine:
        yield engine


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    """One moto server for the whole session: let each test create its own table."""
    with Moto() as engine:
        yield engine


@pytest.fixture(scope="session")
def ministack() -> Iterator[Ministack]:
    """One ministack for the whole session: let each test create its own table."""
    with Ministack() as engine:
        yield engine


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """One Valkey server in memory for the whole session: let each test have its own prefix."""
    with Valkey() as engine:
        yield engine


@pytest.fixture(scope="session")
def _proxies() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture
def fault_proxy(dynoxide: Dynoxide, _proxies: World) -> Iterator[FaultProxy]:
    """A proxy in front of `dynoxide`, without faults, for one test."""
    with FaultProxy(dynoxide, world=_proxies) as proxy:
        yield proxy


@pytest.fixture
def valkey_fault_proxy(valkey: Valkey, _proxies: World) -> Iterator[ValkeyFaultProxy]:
    """A proxy in front of `valkey`, without faults, for one test."""
    with ValkeyFaultProxy(valkey, world=_proxies) as proxy:
        yield proxy


@pytest.fixture
def local_global_table() -> Iterator[LocalGlobalTable]:
    """A Global Table of us-east-1 and us-west-2, empty and whole, for one test."""
    with LocalGlobalTable() as table:
        yield table
