"""Namespaces, features, types and staleness: what the user declares. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from chalk_online_store.schema.references import FeatureReference
from chalk_online_store.schema.types import (
    ChoiceType,
    FeatureType,
    Scalar,
    VectorType,
)
from chalk_online_store.schema.vector_index import VectorIndex

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    # A type checker refuses a number in the brackets of a type. mypy, which alone reads MYPY as
    # true, takes anything in those of a variable that is Any. Others take it if a class has a
    # `__class_getitem__`, and read the type of an attribute from its `__get__` and `__set__`.
    MYPY = False
    if MYPY:
        Vector: Any
    else:

        class Vector:
            """See `types.Vector`."""

            def __class_getitem__(cls, arguments: Any) -> Any: ...

            def __get__(self, instance: object, owner: Any) -> np.ndarray[Any, Any]: ...

            def __set__(
                self, instance: object, value: np.ndarray[Any, Any] | Sequence[float]
            ) -> None: ...

else:
    from chalk_online_store.schema.types import Vector

__all__ = [
    "DEFAULT_GROUP",
    "BloomFilter",
    "ChoiceType",
    "Document",
    "Duration",
    "Feature",
    "FeatureReference",
    "FeatureType",
    "LRUCache",
    "Namespace",
    "OnlineStoreConfig",
    "PrimaryKey",
    "Scalar",
    "Vector",
    "VectorIndex",
    "VectorType",
    "feature",
    "features",
    "microseconds",
    "namespace_of",
    "namespaces",
    "seconds",
]
