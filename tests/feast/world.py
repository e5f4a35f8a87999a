"""A Feast project on our store, for tests of the plug-in."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RegistryConfig
from feast.types import Float64, Int64, String

from chalk_online_store.integrations.feast import ChalkOnlineStore

NOW = datetime.now(UTC).replace(microsecond=250_000)

DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
CITY = Entity(name="city", join_keys=["city"], value_type=ValueType.STRING)
NUMBER, NAME = Field(name="driver_id", dtype=Int64), Field(name="city", dtype=String)
SOURCE = FileSource(path="none.parquet", timestamp_field="event_timestamp")


class Cell(NamedTuple):
    """One value of a response, and its status by name."""

    value: Any
    status: str


def view(name: str, fields: Sequence[Field], **options: Any) -> FeatureView:
    """A feature view of drivers, unless others are given."""
    entities = options.pop("entities", [DRIVER])
    keys = {"driver": NUMBER, "city": NAME}
    schema = [*(keys[entity.name] for entity in entities), *fields]
    return FeatureView(name=name, entities=entities, schema=schema, source=SOURCE, **options)


STATS = view("stats", [Field(name="trips", dtype=Int64), Field(name="rating", dtype=Float64)])
PLACE = view("place", [Field(name="street", dtype=String)])
WEATHER = view("weather", [Field(name="degrees", dtype=Float64)], entities=[CITY])
VISITS = view("visits", [Field(name="count", dtype=Int64)], entities=[DRIVER, CITY])


_numbers = itertools.count()


@dataclass
class Project:
    """A project whose online store is ours, sync or async."""

    url: str
    directory: Path
    runner: asyncio.Runner
    is_async: bool
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config = RepoConfig(
            project="shop",
            provider="local",
            registry=RegistryConfig(path=str(self.directory / "registry.db")),
            online_store={
                "type": "chalk_online_store.integrations.feast.ChalkOnlineStore",
                "url": self.url,
                # Stores of one configuration are shared. A project stands for a process.
                "timeout": 10 + next(_numbers) / 1000,
                **self.options,
            },
            offline_store="file",
            entity_key_serialization_version=3,
        )
        self.features = FeatureStore(config=self.config)
        self.features.apply([DRIVER, CITY, STATS, PLACE, WEATHER, VISITS])

    @property
    def store(self) -> ChalkOnlineStore:
        """The plug-in."""
        found = self.features._get_provider().online_store
        assert isinstance(found, ChalkOnlineStore)
        return found

    def write(
        self,
        table: FeatureView,
        rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Value]]],
        at: datetime = NOW,
        made: datetime | None = None,
    ) -> None:
        """Write values of entities, all at one time."""
        self.write_rows(table, [(key(entity), dict(values), at, made) for entity, values in rows])

    def write_rows(self, table: FeatureView, data: list[Any]) -> None:
        """Write rows as Feast hands them over."""
        if self.is_async:
            self.runner.run(self.store.online_write_batch_async(self.config, table, data, None))
        else:
            self.store.online_write_batch(self.config, table, data, None)

    def read_rows(
        self, table: FeatureView, entities: Sequence[Mapping[str, Any]], names: Any = None
    ) -> list[Any]:
        """What `online_read` answers."""
        keys = [key(entity) for entity in entities]
        if self.is_async:
            return self.runner.run(self.store.online_read_async(self.config, table, keys, names))
        return self.store.online_read(self.config, table, keys, names)

    def respond(self, features: Sequence[str], entities: Sequence[Any], **options: Any) -> Any:
        """What `get_online_features` answers."""
        if self.is_async:
            return self.runner.run(
                self.features.get_online_features_async(list(features), list(entities), **options)
            )
        return self.features.get_online_features(list(features), list(entities), **options)

    def get(self, features: Sequence[str], entities: Sequence[Any]) -> dict[str, list[Cell]]:
        """Its values and statuses by feature, without the entities'."""
        response = self.respond(features, entities)
        columns = response.to_dict()
        names = response.proto.metadata.feature_names.val
        return {
            name: [
                Cell(value, FieldStatus.Name(status))
                for value, status in zip(columns[name], result.statuses, strict=True)
            ]
            for name, result in zip(names, response.proto.results, strict=True)
            if name not in entities[0]
        }

    def close(self) -> None:
        """Close what is open."""
        self.runner.run(self.store.close())


def key(entity: Mapping[str, Any]) -> EntityKey:
    """An entity key of integers and strings."""
    values = [
        Value(int64_val=value) if isinstance(value, int) else Value(string_val=value)
        for value in entity.values()
    ]
    return EntityKey(join_keys=list(entity), entity_values=values)


def ago(**parts: float) -> datetime:
    """A time before `NOW`."""
    return NOW - timedelta(**parts)
