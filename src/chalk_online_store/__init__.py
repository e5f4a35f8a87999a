"""A low-latency online feature store client for DynamoDB, Valkey/Redis and SQLite.

Importing this package loads nothing else of it: each public name is imported on first use, so that
a process pays only for the parts that it uses (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chalk_online_store.async_store import AsyncOnlineStore, AsyncPreparedRead, AsyncScan
    from chalk_online_store.codec.compiled import compiled
    from chalk_online_store.connect import provisioned_wcu
    from chalk_online_store.errors import (
        AccessDenied,
        BusFailed,
        ConnectionFailed,
        DamagedItem,
        DamagedValue,
        FutureTimestamp,
        IncompleteRow,
        InvalidCredentials,
        InvalidKey,
        InvalidNetworkSettings,
        InvalidSchema,
        InvalidStore,
        InvalidURL,
        InvalidValue,
        ItemTooLarge,
        LoadIncomplete,
        MissingDependency,
        OnlineStoreError,
        ProxyFailed,
        ProxyRefused,
        QueueFull,
        ReadFailed,
        RegionUnavailable,
        RegistryError,
        RegistryUnavailable,
        RequestError,
        RequestTimeout,
        RowsAbandoned,
        RowsPending,
        SearchTooLarge,
        ServerError,
        SpoolDamaged,
        SpoolError,
        SpoolFull,
        SpoolInUse,
        StaleConnection,
        StoreClosed,
        TableNotFound,
        Throttled,
        TypeConflict,
        UnknownFeature,
        UnsupportedPlatform,
        VectorIndexUnavailable,
        WriteFailed,
        WriterFailed,
        WritesOutstanding,
    )
    from chalk_online_store.operations.erasure import ErasureReport
    from chalk_online_store.operations.matrix import FeatureMatrix
    from chalk_online_store.operations.prepared import ReadRequest
    from chalk_online_store.operations.regions import Health, RegionCheck
    from chalk_online_store.operations.results import QueryResult
    from chalk_online_store.operations.rows import Answer, Row, Rows, Status
    from chalk_online_store.operations.scan import CountReport, DeletedWhere
    from chalk_online_store.operations.search import SearchRows
    from chalk_online_store.planning.explain import explain
    from chalk_online_store.report import Report
    from chalk_online_store.routing.health import RegionState
    from chalk_online_store.routing.router import RegionStatus
    from chalk_online_store.routing.settings import Hedging, Routing
    from chalk_online_store.schema import (
        BloomFilter,
        Document,
        Feature,
        FeatureReference,
        LRUCache,
        Namespace,
        OnlineStoreConfig,
        Vector,
        VectorIndex,
        feature,
        features,
    )
    from chalk_online_store.store import OnlineStore, PreparedRead, Scan
    from chalk_online_store.tiers.filter.build import BuildReport
    from chalk_online_store.tiers.filter.reads import FilterStats
    from chalk_online_store.tiers.lru import CacheStats
    from chalk_online_store.tiers.shared_cache import SharedCacheStats
    from chalk_online_store.tiers.tiers import NamespaceStats, StoreStats
    from chalk_online_store.writer.async_writer import AsyncPersistenceWriter
    from chalk_online_store.writer.ledger import DeadLetter, DeadLetterFile
    from chalk_online_store.writer.settings import WriterStats, Writing
    from chalk_online_store.writer.tickets import AsyncTicket, Ticket
    from chalk_online_store.writer.writer import PersistenceWriter

_NAMES_BY_MODULE = {
    "async_store": (
        "AsyncOnlineStore",
        "AsyncOnlineStore",
        "AsyncPreparedRead",
        "AsyncPreparedRead",
        "AsyncScan",
    ),
    "codec.compiled": ("compiled",),
    "connect": ("provisioned_wcu",),
    "errors": (
        "AccessDenied",
        "BusFailed",
        "ConnectionFailed",
        "DamagedItem",
        "DamagedValue",
        "FutureTimestamp",
        "IncompleteRow",
        "InvalidCredentials",
        "InvalidKey",
        "InvalidNetworkSettings",
        "InvalidSchema",
        "InvalidStore",
        "InvalidURL",
        "InvalidValue",
        "ItemTooLarge",
        "LoadIncomplete",
        "MissingDependency",
        "OnlineStoreError",
        "ProxyFailed",
        "ProxyRefused",
        "QueueFull",
        "ReadFailed",
        "RegionUnavailable",
        "RegistryError",
        "RegistryUnavailable",
        "RequestError",
        "RequestTimeout",
        "RowsAbandoned",
        "RowsPending",
        "SearchTooLarge",
        "ServerError",
        "SpoolDamaged",
        "SpoolError",
        "SpoolFull",
        "SpoolInUse",
        "StaleConnection",
        "StoreClosed",
        "TableNotFound",
        "Throttled",
        "TypeConflict",
        "UnknownFeature",
        "UnsupportedPlatform",
        "VectorIndexUnavailable",
        "WriteFailed",
        "WriterFailed",
        "WritesOutstanding",
    ),
    "operations.erasure": ("ErasureReport",),
    "operations.matrix": ("FeatureMatrix",),
    "operations.prepared": ("ReadRequest",),
    "operations.regions": ("Health", "RegionCheck"),
    "operations.results": ("QueryResult",),
    "operations.rows": ("Answer", "Row", "Rows", "Status"),
    "operations.scan": ("CountReport", "DeletedWhere"),
    "operations.search": ("SearchRows",),
    "planning.explain": ("explain",),
    "report": ("Report",),
    "routing.health": ("RegionState",),
    "routing.router": ("RegionStatus",),
    "routing.settings": ("Hedging", "Routing"),
    "schema": (
        "BloomFilter",
        "Document",
        "Feature",
        "FeatureReference",
        "LRUCache",
        "Namespace",
        "OnlineStoreConfig",
        "Vector",
        "VectorIndex",
        "feature",
        "features",
    ),
    "store": ("OnlineStore", "PreparedRead", "Scan"),
    "tiers.filter.build": ("BuildReport",),
    "tiers.filter.reads": ("FilterStats",),
    "tiers.lru": ("CacheStats",),
    "tiers.shared_cache": ("SharedCacheStats",),
    "tiers.tiers": ("NamespaceStats", "StoreStats"),
    "writer.async_writer": ("AsyncPersistenceWriter",),
    "writer.ledger": ("DeadLetter", "DeadLetterFile"),
    "writer.settings": ("WriterStats", "Writing"),
    "writer.tickets": ("AsyncTicket", "Ticket"),
    "writer.writer": ("PersistenceWriter",),
}
_MODULES = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

__all__ = [
    "AccessDenied",
    "Answer",
    "AsyncOnlineStore",
    "AsyncPersistenceWriter",
    "AsyncPreparedRead",
    "AsyncScan",
    "AsyncTicket",
    "BloomFilter",
    "BuildReport",
    "BusFailed",
    "CacheStats",
    "ConnectionFailed",
    "CountReport",
    "DamagedItem",
    "DamagedValue",
    "DeadLetter",
    "DeadLetterFile",
    "DeletedWhere",
    "Document",
    "ErasureReport",
    "Feature",
    "FeatureMatrix",
    "FeatureReference",
    "FilterStats",
    "FutureTimestamp",
    "Health",
    "Hedging",
    "IncompleteRow",
    "InvalidCredentials",
    "InvalidKey",
    "InvalidNetworkSettings",
    "InvalidSchema",
    "InvalidStore",
    "InvalidURL",
    "InvalidValue",
    "ItemTooLarge",
    "LRUCache",
    "LoadIncomplete",
    "MissingDependency",
    "Namespace",
    "NamespaceStats",
    "OnlineStore",
    "OnlineStoreConfig",
    "OnlineStoreError",
    "PersistenceWriter",
    "PreparedRead",
    "ProxyFailed",
    "ProxyRefused",
    "QueryResult",
    "QueueFull",
    "ReadFailed",
    "ReadRequest",
    "RegionCheck",
    "RegionState",
    "RegionStatus",
    "RegionUnavailable",
    "RegistryError",
    "RegistryUnavailable",
    "Report",
    "RequestError",
    "RequestTimeout",
    "Routing",
    "Row",
    "Rows",
    "RowsAbandoned",
    "RowsPending",
    "Scan",
    "SearchRows",
    "SearchTooLarge",
    "ServerError",
    "SharedCacheStats",
    "SpoolDamaged",
    "SpoolError",
    "SpoolFull",
    "SpoolInUse",
    "StaleConnection",
    "Status",
    "StoreClosed",
    "StoreStats",
    "TableNotFound",
    "Throttled",
    "Ticket",
    "TypeConflict",
    "UnknownFeature",
    "UnsupportedPlatform",
    "Vector",
    "VectorIndex",
    "VectorIndexUnavailable",
    "WriteFailed",
    "WriterFailed",
    "WriterStats",
    "WritesOutstanding",
    "Writing",
    "compiled",
    "explain",
    "feature",
    "features",
    "provisioned_wcu",
]


if not TYPE_CHECKING:  # A type checker that saw it would accept every misspelt name.

    def __getattr__(name: str) -> Any:
        module = _MODULES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{module}"), name)
        globals()[name] = value  # The next access does not come here.
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
