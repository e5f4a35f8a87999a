"""Stores that are opened without a schema, and their registries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from chalk_online_store.backend import Backend, Call
from chalk_online_store.codec.registry import Registry
from chalk_online_store.connect import connect
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.effects import Operation
from chalk_online_store.operations.registry import RegistryKeeper
from chalk_online_store.routing.router import Router
from chalk_online_store.routing.settings import Routing

T = TypeVar("T")

ANSWERS_WITHIN = 10.0
"""Seconds that an engine has to answer: people wait."""


@dataclass(frozen=True, slots=True)
class OpenedStore:
    """A store without a schema; `router` is None where it has no regions to choose from."""

    backend: Backend
    driver: SyncDriver
    router: Router | None

    def run(self, operation: Operation[T]) -> T:
        """Perform an operation."""
        return self.driver.run(operation)

    def call(self, seconds: float, region: str = "") -> Call:
        """A call that ends so many seconds from now."""
        return Call(read_clocks().monotonic + seconds, region=region)


@contextmanager
def opened_store(url: str, routing: Routing | None = None) -> Iterator[OpenedStore]:
    """Open a store, and close it; raises what `connect` raises."""
    backend, transports, route = connect(url, None, routing)
    driver = SyncDriver(transports)
    try:
        yield OpenedStore(backend, driver, route.router if route else None)
    finally:
        driver.close()


def load_registry(url: str) -> Registry:
    """Read the registry of a store; raises what `connect` and a read raise."""
    with opened_store(url) as store:
        keeper = RegistryKeeper(store.backend)
        return store.run(keeper.load(store.call(ANSWERS_WITHIN)))
