"""Migrating from one store to another without downtime. See docs/migration.md."""

from chalk_online_store.migration.async_store import AsyncDualStore, AsyncPreparedDualRead
from chalk_online_store.migration.comparing import DifferenceKind, same_value
from chalk_online_store.migration.report import (
    Difference,
    DualReport,
    DualSettings,
    FeatureComparison,
    Outstanding,
    ReadLatency,
    Side,
)
from chalk_online_store.migration.steps import Store
from chalk_online_store.migration.store import DualStore, PreparedDualRead
from chalk_online_store.migration.writers import AsyncDualWriter, DualWriter

__all__ = [
    "AsyncDualStore",
    "AsyncDualWriter",
    "AsyncPreparedDualRead",
    "Difference",
    "DifferenceKind",
    "DualReport",
    "DualSettings",
    "DualStore",
    "DualWriter",
    "FeatureComparison",
    "Outstanding",
    "PreparedDualRead",
    "ReadLatency",
    "Side",
    "Store",
    "same_value",
]
