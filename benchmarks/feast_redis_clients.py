"""Who reads and writes one Valkey server: this store, Feast's Redis store, this one in Feast.

Each has a database of its own on it. `floor` reads this store's bytes by redis-py, and makes
nothing of them.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from feast import FeatureStore, RepoConfig
from feast.repo_config import RegistryConfig

from benchmarks.clients.ours import namespace
from benchmarks.clients.with_feast import (
    ENTITY,
    entity_key,
    loads_of,
    loads_of_columns,
    make_entity,
    make_view,
    message,
    stores_of,
)
from benchmarks.clients.writers import AT_ONCE as HANDFUL
from benchmarks.clients.writers import handfuls
from benchmarks.data import ROWS, Dataset, Row
from chalk_online_store import AsyncOnlineStore, OnlineStore, PersistenceWriter, Writing

Call: TypeAlias = Callable[[], Any]
"""What is timed; all that can be made ready before is."""

AT_ONCE = 16
"""Reads that a client of asyncio has under way."""


def rows_of(dataset: Dataset, ids: Sequence[int]) -> list[Row]:
    """A row for each primary key: the dataset's again and again."""
    return [dataset.rows[number % ROWS] | {"id": number} for number in ids]


class Client(ABC):
    """One way to read, or to write, or both."""

    name: ClassVar[str]
    database: ClassVar[int]
    at_once: ClassVar[int] = 1
    whole_seconds: ClassVar[bool] = False

    @abstractmethod
    def reader(self, ids: list[int]) -> Call:
        """A read of these entities; `at_once` of them."""

    def plain(self, found: Any) -> Any:
        """What a read gave as rows or columns, to be checked."""
        return found


class Ours:
    """This store, with whatever is open of it."""

    def __init__(self, port: int, dataset: Dataset) -> None:
        self.url = f"valkey://127.0.0.1:{port}/1"
        self.schema = namespace(dataset)
        self.dataset = dataset
        self.store = OnlineStore.open(self.url, [self.schema], timeout=60)
        self.loop = asyncio.new_event_loop()
        self.async_store = AsyncOnlineStore.open(self.url, [self.schema], timeout=60)

    def close(self) -> None:
        """Close what is open."""
        self.store.close()
        self.loop.run_until_complete(self.async_store.close())
        self.loop.close()


class AsRead(Client):
    """`OnlineStore.read`, of which nothing is taken out."""

    name = "OnlineStore, as read"
    database = 1

    def __init__(self, ours: Ours) -> None:
        self._ours = ours

    def reader(self, ids: list[int]) -> Call:
        """As `Client.reader`."""
        read, schema = self._ours.store.read, self._ours.schema
        return lambda: read(schema, ids)

    def plain(self, found: Any) -> Any:
        """As `Client.plain`."""
        return found.to_pylist()


class Rows(AsRead):
    """`OnlineStore.read`, then a dictionary for each entity."""

    name = "OnlineStore"

    def reader(self, ids: list[int]) -> Call:
        """As `Client.reader`."""
        read, schema = self._ours.store.read, self._ours.schema
        return lambda: read(schema, ids).to_pylist()

    def plain(self, found: Any) -> Any:
        """As `Client.plain`."""
        return found


class Columns(Rows):
    """`OnlineStore.read`, then a list for each feature."""

    name = "OnlineStore, columns"

    def reader(self, ids: list[int]) -> Call:
        """As `Client.reader`."""
        read, schema = self._ours.store.read, self._ours.schema
        return lambda: read(schema, ids).to_dict()


class Tasks(Rows):
    """`AsyncOnlineStore.read` of several tasks, each as rows."""

    name = "AsyncOnlineStore"
    at_once = AT_ONCE

    def reader(self, ids: list[int]) -> Call:
        """As `Client.reader`."""
        store, schema = self._ours.async_store, self._ours.schema

        async def read() -> Any:
            return (await store.read(schema, ids)).to_pylist()

        return at_once(self._ours.loop, read)


class Floor(Client):
    """An MGET of the same keys by redis-py and hiredis: bytes, of which nothing is made."""

    name = "floor: MGET by redis-py"
    database = 1

    def __init__(self, redis: Any, keys: Sequence[bytes]) -> None:
        self._redis = redis
        self._keys = keys

    def reader(self, ids: list[int]) -> Call:
        """As `Client.reader`."""
        mget, keys = self._redis.mget, [self._keys[number] for number in ids]
        return lambda: mget(keys)


class Feast:
    """A Feast project with one view, on an online store."""

    def __init__(self, directory: Path, dataset: Dataset, online_store: dict[str, Any]) -> None:
        self.dataset = dataset
        self.view = make_view(dataset)
        self._registry = RegistryConfig(path=str(directory / f"{online_store['type']}.db"))
        self._online_store = online_store
        self.config = self.configured()
        self.features = FeatureStore(config=self.config)
        self.features.apply([make_entity(), self.view])
        self.online: Any = self.features._get_provider().online_store
        self.loop = asyncio.new_event_loop()

    def configured(self, **online_store: Any) -> RepoConfig:
        """The project's settings, with others of the online store."""
        return RepoConfig(
            project="bench",
            provider="local",
            registry=self._registry,
            online_store=self._online_store | online_store,
            offline_store="file",
            entity_key_serialization_version=3,
        )

    def close(self) -> None:
        """Close what is open, also what Feast's Redis store leaves open."""
        self.loop.run_until_complete(self.features.close())
        if client := getattr(self.online, "_client", None):
            client.close()
        if client := getattr(self.online, "_client_async", None):
            self.loop.run_until_complete(client.aclose())
        self.loop.close()


def theirs(port: int, directory: Path, dataset: Dataset) -> Feast:
    """Feast on its own Redis store."""
    connection = f"127.0.0.1:{port},db={OnlineRead.database}"
    return Feast(directory, dataset, {"type": "redis", "connection_string": connection})


def ours_in_feast(port: int, directory: Path, dataset: Dataset) -> Feast:
    """Feast on this store."""
    kind = "chalk_online_store.integrations.feast.ChalkOnlineStore"
    url = f"valkey://127.0.0.1:{port}/{OurOnlineRead.database}"
    return Feast(directory, dataset, {"type": kind, "url": url, "timeout": 60})


class OnlineRead(Client):
    """`online_read` of the online store, by itself: protobuf messages."""

    name = "Feast's Redis store, as read"
    database = 2
    whole_seconds = True

    def __init__(self, feast: Feast) -> None:
        self._feast = feast
        self._loads = loads_of(feast.dataset)

    def reader(self, ids: list[int]) -> Call:
        """As `Client.reader`."""
        feast, keys = self._feast, [entity_key(number) for number in ids]
        return lambda: feast.online.online_read(feast.config, feast.view, keys)

    def plain(self, found: Any) -> Any:
        """As `Client.plain`."""
        return [
            {name: load(getattr(values[name], field)) for name, field, load in self._loads}
            for _, values in found
        ]


class OurOnlineRead(OnlineRead):
    """The same of this store in Feast."""

    name = "ours in Feast, as read"
    database = 3


class OnlineReadRows(OnlineRead):
    """`online_read`, then a dictionary of Python's values for each entity."""

    name = "Feast's Redis store"

    def reader(self, ids: list[int]) -> Call:
        """As `Client.reader`."""
        read, rows = super().reader(ids), super().plain
        return lambda: rows(read())

    def plain(self, found: Any) -> Any:
        """As `Client.plain`."""
        return found


class OnlineReadTasks(OnlineReadRows):
    """`online_read_async` of several tasks, each as rows."""

    name = "Feast's Redis store, asyncio"
    at_once = AT_ONCE

    def reader(self, ids: list[int]) -> Call:
        """As `Client.reader`."""
        feast, keys = self._feast, [entity_key(number) for number in ids]
        load = super(OnlineReadRows, self).plain

        async def read() -> Any:
            found = await feast.online.online_read_async(feast.config, feast.view, keys)
            return load(found)

        return at_once(feast.loop, read)


class Response(OnlineRead):
    """`get_online_features(…)`: the response that a feature server sends on."""

    name = "get_online_features, Feast's Redis store"

    def reader(self, ids: list[int]) -> Call:
        """As `Client.reader`."""
        get, asked = self._feast.features.get_online_features, [{ENTITY: n} for n in ids]
        names = [f"{self._feast.view.name}:{name}" for name in self._feast.dataset.kinds]
        return lambda: get(names, asked)

    def plain(self, found: Any) -> Any:
        """As `Client.plain`."""
        return self.columns(found.to_dict())

    def columns(self, found: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Without the keys, and with vectors as arrays."""
        columns = {name: values for name, values in found.items() if name != ENTITY}
        loads = loads_of_columns(self._feast.dataset)
        return columns | {name: list(map(load, columns[name])) for name, load in loads}


class OurResponse(Response):
    """The same on this store."""

    name = "get_online_features, ours"
    database = 3


class Dictionary(Response):
    """`get_online_features(…).to_dict()`."""

    name = "get_online_features.to_dict, Feast's Redis store"

    def reader(self, ids: list[int]) -> Call:
        """As `Client.reader`."""
        read = super().reader(ids)
        return lambda: read().to_dict()

    def plain(self, found: Any) -> Any:
        """As `Client.plain`."""
        return self.columns(found)


class OurDictionary(Dictionary):
    """The same on this store."""

    name = "get_online_features.to_dict, ours"
    database = 3


def at_once(loop: asyncio.AbstractEventLoop, read: Callable[[], Any]) -> Call:
    """`AT_ONCE` reads together; gives what the last one read."""

    async def read_all() -> Any:
        return (await asyncio.gather(*(read() for _ in range(AT_ONCE))))[-1]

    return lambda: loop.run_until_complete(read_all())


# --- writers -------------------------------------------------------------------------------

Writer: TypeAlias = Callable[[Sequence[int], datetime], Call]
"""Makes a write of these entities, true at that time."""


def writers(ours: Ours, on_redis: Feast, on_ours: Feast) -> Iterator[tuple[str, str, Writer]]:
    """Each writer with its name, and that of ours which gives the same promise."""
    event, arrival = "OnlineStore.write", "OnlineStore.write, arrival"
    yield event, event, _of_store(ours, "event")
    yield arrival, arrival, _of_store(ours, "arrival")
    for ordering, name in (("event", event), ("arrival", arrival)):
        yield f"PersistenceWriter, {ordering}", name, _of_writer(ours, ordering)
    yield "Feast's Redis store", event, _of_feast(on_redis)
    hasty = on_redis.configured(skip_dedup=True)
    yield "Feast's Redis store, skip_dedup", arrival, _of_feast(on_redis, hasty)
    yield "ours in Feast", event, _of_feast(on_ours)


def _of_store(ours: Ours, ordering: Any) -> Writer:
    def writer(ids: Sequence[int], at: datetime) -> Call:
        rows = rows_of(ours.dataset, ids)
        return lambda: ours.store.write(ours.schema, rows, observed_at=at, ordering=ordering)

    return writer


def _of_writer(ours: Ours, ordering: Any) -> Writer:
    writing = Writing(ordering=ordering)

    def writer(ids: Sequence[int], at: datetime) -> Call:
        handed = handfuls(rows_of(ours.dataset, ids), HANDFUL)

        def write() -> None:
            with PersistenceWriter(ours.store, writing) as kept:
                for rows in handed:
                    kept.submit(ours.schema, rows, at)
                kept.flush(60)

        return write

    return writer


def _of_feast(feast: Feast, config: RepoConfig | None = None) -> Writer:
    stores = stores_of(feast.dataset)

    def writer(ids: Sequence[int], at: datetime) -> Call:
        data = [
            (entity_key(row["id"]), message(row, stores), at, None)
            for row in rows_of(feast.dataset, ids)
        ]
        write = feast.online.online_write_batch
        return lambda: write(config or feast.config, feast.view, data, None)

    return writer
