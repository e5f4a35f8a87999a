"""Namespaces, features, types and staleness: what the user declares. Pure."""

from chalk_online_store.schema.annotations import Document
from chalk_online_store.schema.config import BloomFilter, LRUCache, OnlineStoreConfig
from chalk_online_store.schema.durations import Duration, microseconds, seconds
from chalk_online_store.schema.namespaces import (
    DEFAULT_GROUP,
    Feature,
    Namespace,
    PrimaryKey,
    feature,
    features,
    namespace_of,
    namespaces,
)
from chalk_online_store.schema.types import (
    ChoiceType,
    FeatureType,
    Scalar,
    Vector,
    VectorType,
)

__all__ = [
    "DEFAULT_GROUP",
    "BloomFilter",
    "ChoiceType",
    "Document",
    "Duration",
    "Feature",
    "FeatureType",
    "LRUCache",
    "Namespace",
    "OnlineStoreConfig",
    "PrimaryKey",
    "Scalar",
    "Vector",
    "VectorType",
    "feature",
    "features",
    "microseconds",
    "namespace_of",
    "namespaces",
    "seconds",
]
