"""Serve machine-learning features from DynamoDB, in native types under short stable ids."""

from chalk_online_store.async_store import AsyncOnlineStore, AsyncPreparedRead
from chalk_online_store.cache.lru import CacheStats
from chalk_online_store.capacity.explain import explain
from chalk_online_store.connect import provisioned_wcu
from chalk_online_store.errors import (
    AccessDenied,
    ConnectionFailed,
    DamagedItem,
    IncompleteRow,
    InvalidCredentials,
    InvalidKey,
    InvalidSchema,
    InvalidStore,
    InvalidURL,
    InvalidValue,
    ItemTooLarge,
    MissingDependency,
    OnlineStoreError,
    QueueFull,
    ReadFailed,
    RegionUnavailable,
    RegistryError,
    RegistryUnavailable,
    RequestError,
    RequestTimeout,
    RowsAbandoned,
    RowsPending,
    ServerError,
    SpoolDamaged,
    SpoolError,
    SpoolFull,
    SpoolInUse,
    StoreClosed,
    TableNotFound,
    Throttled,
    TypeConflict,
    UnknownFeature,
    WriteFailed,
    WriterFailed,
)
from chalk_online_store.operations.bloom.build import BuildReport
from chalk_online_store.operations.bloom.reads import FilterStats
from chalk_online_store.operations.regions import Health, RegionCheck
from chalk_online_store.operations.results import QueryResult
from chalk_online_store.operations.rows import Answer, Row, Rows, Status
from chalk_online_store.operations.shared import SharedCacheStats
from chalk_online_store.operations.tiers import NamespaceStats, StoreStats
from chalk_online_store.report import Report
from chalk_online_store.routing.health import RegionState
from chalk_online_store.routing.router import RegionStatus
from chalk_online_store.routing.settings import Hedging, Routing
from chalk_online_store.schema import (
    BloomFilter,
    Document,
    Feature,
    LRUCache,
    Namespace,
    OnlineStoreConfig,
    Vector,
    feature,
    features,
)
from chalk_online_store.store import OnlineStore, PreparedRead
from chalk_online_store.writer.async_writer import AsyncPersistenceWriter
from chalk_online_store.writer.dead_letters import DeadLetter, DeadLetterFile
from chalk_online_store.writer.settings import Writing
from chalk_online_store.writer.stats import WriterStats
from chalk_online_store.writer.tickets import AsyncTicket, Ticket
from chalk_online_store.writer.writer import PersistenceWriter

__all__ = [
    "AccessDenied",
    "Answer",
    "AsyncOnlineStore",
    "AsyncPersistenceWriter",
    "AsyncPreparedRead",
    "AsyncTicket",
    "BloomFilter",
    "BuildReport",
    "CacheStats",
    "ConnectionFailed",
    "DamagedItem",
    "DeadLetter",
    "DeadLetterFile",
    "Document",
    "Feature",
    "FilterStats",
    "Health",
    "Hedging",
    "IncompleteRow",
    "InvalidCredentials",
    "InvalidKey",
    "InvalidSchema",
    "InvalidStore",
    "InvalidURL",
    "InvalidValue",
    "ItemTooLarge",
    "LRUCache",
    "MissingDependency",
    "Namespace",
    "NamespaceStats",
    "OnlineStore",
    "OnlineStoreConfig",
    "OnlineStoreError",
    "PersistenceWriter",
    "PreparedRead",
    "QueryResult",
    "QueueFull",
    "ReadFailed",
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
    "ServerError",
    "SharedCacheStats",
    "SpoolDamaged",
    "SpoolError",
    "SpoolFull",
    "SpoolInUse",
    "Status",
    "StoreClosed",
    "StoreStats",
    "TableNotFound",
    "Throttled",
    "Ticket",
    "TypeConflict",
    "UnknownFeature",
    "Vector",
    "WriteFailed",
    "WriterFailed",
    "WriterStats",
    "Writing",
    "explain",
    "feature",
    "features",
    "provisioned_wcu",
]
