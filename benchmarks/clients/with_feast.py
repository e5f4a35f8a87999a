"""Feast: its DynamoDB online store by itself, and `get_online_features` on top of it.

Both give protobuf messages, which are turned into rows of declared types; datetimes only to the
second, as Feast keeps no more. A write has no condition and no expiry.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.infra.online_stores.dynamodb import DynamoDBOnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RegistryConfig
from feast.types import Bool, Bytes, Float64, Int64, String, UnixTimestamp

from benchmarks.clients.base import REGION, Call, Client
from benchmarks.data import OBSERVED_AT, Dataset, Floats, Row

ENTITY = "user"

_TYPES: dict[Any, Any] = {
    float: (Float64, "double_val"),
    int: (Int64, "int64_val"),
    str: (String, "string_val"),
    bool: (Bool, "bool_val"),
    datetime: (UnixTimestamp, "unix_timestamp_val"),
    Floats: (Bytes, "bytes_val"),
}


class FeastStore(Client):
    """`online_read` and `online_write_batch` of `DynamoDBOnlineStore`."""

    packages = ("feast", "boto3", "botocore", "protobuf")
    whole_seconds = True

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        self.project = prefix
        self._directory = tempfile.TemporaryDirectory()
        path = Path(self._directory.name)
        self.config = RepoConfig(
            project=self.project,
            provider="aws",
            registry=RegistryConfig(path=str(path / "registry.db"), cache_ttl_seconds=0),
            online_store={"type": "dynamodb", "region": REGION, "endpoint_url": url},
            offline_store="file",
            entity_key_serialization_version=3,
            repo_path=path,
        )
        self._store = DynamoDBOnlineStore()
        self.view = cache(make_view)

    def reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """As `Client.reader`; one key or many by BatchGetItem, as Feast has it."""
        view, loads, keys = self.view(dataset), loads_of(dataset), [entity_key(n) for n in ids]

        def read() -> list[Row]:
            found = self._store.online_read(self.config, view, keys)
            return [
                {name: load(getattr(values[name], field)) for name, field, load in loads}
                for _, values in found
                if values is not None
            ]

        return read

    def writer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.writer`."""
        view, stores = self.view(dataset), stores_of(dataset)

        def write() -> None:
            data = [
                (entity_key(row["id"]), message(row, stores), OBSERVED_AT, None) for row in rows
            ]
            self._store.online_write_batch(self.config, view, data, None)

        return write

    def streamer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """`online_write_batch` takes any number."""
        return self.writer(dataset, rows)

    def close(self) -> None:
        """As `Client.close`."""
        self._directory.cleanup()


class FeastFeatures(FeastStore):
    """`FeatureStore.get_online_features(…).to_dict()`: columns."""

    reads_only = True

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        self._features = FeatureStore(config=self.config)
        self._apply = cache(self._apply_view)

    def _apply_view(self, dataset: Dataset) -> None:
        """Into the registry alone: the table is there."""
        registry = self._features.registry
        registry.apply_entity(make_entity(), self.project, commit=False)
        registry.apply_feature_view(self.view(dataset), self.project)

    def reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """As `Client.reader`, but columns."""
        self._apply(dataset)
        view = self.view(dataset)
        features = [f"{view.name}:{name}" for name in dataset.kinds]
        loads = loads_of_columns(dataset)

        def read() -> dict[str, list[Any]]:
            asked = [{ENTITY: number} for number in ids]
            columns: dict[str, list[Any]] = self._features.get_online_features(
                features, asked
            ).to_dict()
            del columns[ENTITY]
            for name, load in loads:
                columns[name] = [load(value) for value in columns[name]]
            return columns

        return read


def make_entity() -> Entity:
    return Entity(name=ENTITY, join_keys=[ENTITY], value_type=ValueType.INT64)


def make_view(dataset: Dataset) -> FeatureView:
    return FeatureView(
        name=f"features_{dataset.features}",
        entities=[make_entity()],
        ttl=timedelta(days=36_500),
        schema=[
            Field(name=ENTITY, dtype=Int64),
            *(Field(name=name, dtype=_typed(kind)[0]) for name, kind in dataset.kinds.items()),
        ],
        source=FileSource(path="none.parquet", timestamp_field="event_timestamp"),
    )


def entity_key(number: int) -> EntityKey:
    return EntityKey(join_keys=[ENTITY], entity_values=[Value(int64_val=number)])


def message(row: Row, stores: list[tuple[str, str, Any]]) -> dict[str, Value]:
    return {name: Value(**{field: store(row[name])}) for name, field, store in stores}


def stores_of(dataset: Dataset) -> list[tuple[str, str, Any]]:
    """Each feature, the field of `Value` that has it, and how a value is put there."""
    stores = {datetime: lambda value: int(value.timestamp()), Floats: lambda v: v.tobytes()}
    return [
        (name, _typed(kind)[1], stores.get(_kind(kind), lambda value: value))
        for name, kind in dataset.kinds.items()
    ]


def loads_of(dataset: Dataset) -> list[tuple[str, str, Any]]:
    """Each feature, the field of `Value` that has it, and how a value is made of that."""
    loads = {
        datetime: lambda stored: datetime.fromtimestamp(stored, UTC),
        Floats: lambda stored: np.frombuffer(stored, "<f4"),
    }
    return [
        (name, _typed(kind)[1], loads.get(_kind(kind), lambda stored: stored))
        for name, kind in dataset.kinds.items()
    ]


def loads_of_columns(dataset: Dataset) -> list[tuple[str, Any]]:
    """What `to_dict` leaves to do: vectors; datetimes it makes itself."""
    return [
        (name, lambda stored: np.frombuffer(stored, "<f4"))
        for name, kind in dataset.kinds.items()
        if _kind(kind) is Floats
    ]


def _kind(kind: Any) -> Any:
    return Floats if isinstance(kind, Floats) else kind


def _typed(kind: Any) -> Any:
    return _TYPES[_kind(kind)]
