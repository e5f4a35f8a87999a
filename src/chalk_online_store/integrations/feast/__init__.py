"""A Feast online store: `pip install 'chalk-online-store[feast]'`. See docs/feast.md."""

from chalk_online_store.integrations.feast.copying import Copied, copy_online
from chalk_online_store.integrations.feast.feast_store import (
    AsyncFeastStore,
    FeastMapping,
    FeastStore,
)
from chalk_online_store.integrations.feast.searches import namespaces_of
from chalk_online_store.integrations.feast.store import ChalkOnlineStore, ChalkOnlineStoreConfig

__all__ = [
    "AsyncFeastStore",
    "ChalkOnlineStore",
    "ChalkOnlineStoreConfig",
    "Copied",
    "FeastMapping",
    "FeastStore",
    "copy_online",
    "namespaces_of",
]
