"""The registry of a store that is opened without a schema."""

from __future__ import annotations

from chalk_online_store.backend import Call
from chalk_online_store.codec.registry import Registry
from chalk_online_store.connect import connect
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.operations.registry import RegistryKeeper

TIMEOUT = 10.0
"""Seconds that an engine has to answer: people wait."""


def load_registry(url: str) -> Registry:
    """Read the registry; raises what `connect` and a read raise."""
    backend, transports, _ = connect(url, None)
    driver = SyncDriver(transports)
    try:
        call = Call(read_clocks().monotonic + TIMEOUT)
        return driver.run(RegistryKeeper(backend).load(call))
    finally:
        driver.close()
