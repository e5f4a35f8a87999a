"""Stores on every engine: SQLite, DynamoDB's, Valkey, Redis, and an endpoint that the user names.

`shared_cache` is dynoxide behind a cache on Valkey, `mock_aws` is moto in this process. `selection`
says which tests are repeated on the slow engines by the store for tasks, and under `mock_aws`.

To run the contract on another engine, or on DynamoDB itself, name it:

    CHALK_TEST_ENDPOINT=http://127.0.0.1:8000 CHALK_TEST_REGION=us-east-1 pytest tests/contract

Each test creates a table of its own there, and deletes it.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from chalk_online_store import (
    AsyncOnlineStore,
    AsyncScan,
    BuildReport,
    CountReport,
    DeletedWhere,
    ErasureReport,
    FeatureMatrix,
    Health,
    OnlineStore,
    QueryResult,
    ReadRequest,
    RegionStatus,
    Report,
    Row,
    Rows,
    Scan,
    SearchRows,
    StoreStats,
)
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.effects import Operation
from chalk_online_store.operations.core import Core
from chalk_online_store.schema import namespaces
from chalk_online_store.testing import Engine, Valkey, ValkeyCluster, create_table
from chalk_online_store.urls import parse_url
from tests.contract.known_failures import mark_known_failure
from tests.contract.selection import is_left_out, is_search_left_out

Open = Callable[..., "AnyStore"]

ENDPOINT = os.environ.get("CHALK_TEST_ENDPOINT")
REGION = os.environ.get("CHALK_TEST_REGION", "us-east-1")
SERVERS = ["valkey", "redis_server", "valkey_cluster"]
SLOW = ["moto", "ministack"]
ENGINES = ["sqlite", "dynoxide", "shared_cache", *SERVERS, *SLOW, "mock_aws"]
ENGINES += ["endpoint"] if ENDPOINT else []


class AnyStore:
    """A sync or async store behind one set of plain methods."""

    def __init__(self, store: OnlineStore | AsyncOnlineStore, runner: asyncio.Runner) -> None:
        self._store = store
        self._runner = runner

    def read(self, *args: Any, **options: Any) -> Rows:
        """`read` of either store."""
        rows: Rows = self._settle(self._store.read(*args, **options))
        return rows

    def get(self, *args: Any, **options: Any) -> Row:
        """`get` of either store."""
        row: Row = self._settle(self._store.get(*args, **options))
        return row

    def read_many(self, *requests: ReadRequest[Any], **options: Any) -> tuple[Rows, ...]:
        """`read_many` of either store."""
        found: tuple[Rows, ...] = self._settle(self._store.read_many(*requests, **options))
        return found

    def get_prepared(self, schema: Any, key: Any, **options: Any) -> Row:
        """`prepare` of either store, and `get` of what it gives."""
        row: Row = self._settle(self._store.prepare(schema, **options).get(key))
        return row

    def read_prepared(self, schema: Any, names: list[str], keys: list[Any]) -> Rows:
        """`prepare` of either store, and `read` of what it gives."""
        rows: Rows = self._settle(self._store.prepare(schema, names).read(keys))
        return rows

    def matrix_prepared(self, schema: Any, names: Any, keys: Any, **options: Any) -> FeatureMatrix:
        """`prepare` of either store, and `matrix` of what it gives."""
        matrix: FeatureMatrix = self._settle(
            self._store.prepare(schema, names).matrix(keys, **options)
        )
        return matrix

    def search(self, *args: Any, **options: Any) -> SearchRows:
        """`search` of either store."""
        rows: SearchRows = self._settle(self._store.search(*args, **options))
        return rows

    def warm(self, connections: int) -> int:
        """`warm` of either store."""
        count: int = self._settle(self._store.warm(connections))
        return count

    def write(self, *args: Any, **options: Any) -> Report:
        """`write` of either store."""
        report: Report = self._settle(self._store.write(*args, **options))
        return report

    def delete(self, *args: Any, **options: Any) -> Report:
        """`delete` of either store."""
        report: Report = self._settle(self._store.delete(*args, **options))
        return report

    def drop(self, *args: Any, **options: Any) -> Report:
        """`drop` of either store."""
        report: Report = self._settle(self._store.drop(*args, **options))
        return report

    def rename(self, *args: Any, **options: Any) -> Report:
        """`rename` of either store."""
        report: Report = self._settle(self._store.rename(*args, **options))
        return report

    def regions(self) -> list[RegionStatus]:
        """`regions` of either store."""
        return self._store.regions()

    def health(self) -> Health:
        """`health` of either store."""
        found: Health = self._settle(self._store.health())
        return found

    def stats(self) -> StoreStats:
        """`stats` of either store."""
        return self._store.stats()

    def build_bloom_filters(self, *args: Any, **options: Any) -> BuildReport:
        """`build_bloom_filters` of either store."""
        report: BuildReport = self._settle(self._store.build_bloom_filters(*args, **options))
        return report

    def wait(self, seconds: float) -> None:
        """Let time pass, and what runs in the background go on."""
        if isinstance(self._store, OnlineStore):
            time.sleep(seconds)
        else:
            self._runner.run(asyncio.sleep(seconds))

    def scan(self, *args: Any, **options: Any) -> AnyScan:
        """`scan` of either store."""
        return AnyScan(self._store.scan(*args, **options), self._settle)

    def count(self, *args: Any, **options: Any) -> CountReport:
        """`count` of either store."""
        report: CountReport = self._settle(self._store.count(*args, **options))
        return report

    def delete_where(self, *args: Any, **options: Any) -> DeletedWhere:
        """`delete_where` of either store."""
        report: DeletedWhere = self._settle(self._store.delete_where(*args, **options))
        return report

    def forget(self, *args: Any, **options: Any) -> ErasureReport:
        """`forget` of either store."""
        report: ErasureReport = self._settle(self._store.forget(*args, **options))
        return report

    def write_result(self, *args: Any, **options: Any) -> Report:
        """`write_result` of either store."""
        report: Report = self._settle(self._store.write_result(*args, **options))
        return report

    def read_result(self, *args: Any, **options: Any) -> QueryResult:
        """`read_result` of either store."""
        result: QueryResult = self._settle(self._store.read_result(*args, **options))
        return result

    def run(self, operation: Operation[Any]) -> Any:
        """Perform an operation by the driver of either store."""
        return self._settle(self._store.driver.run(operation))

    @property
    def core(self) -> Core:
        """What both are built on."""
        return self._store.core

    def close(self) -> None:
        """`close` of either store."""
        self._settle(self._store.close())

    def _settle(self, result: Any) -> Any:
        return self._runner.run(result) if asyncio.iscoroutine(result) else result


class AnyScan:
    """A sync or async scan as a plain iterator."""

    def __init__(self, scan: Scan[Any] | AsyncScan[Any], settle: Callable[[Any], Any]) -> None:
        self._scan = scan
        self._settle = settle

    @property
    def token(self) -> str:
        """`token` of either scan."""
        return self._scan.token

    def __iter__(self) -> Iterator[Rows]:
        if isinstance(self._scan, Scan):
            yield from self._scan
            return
        while (rows := self._settle(self._next(self._scan))) is not None:
            yield rows

    @staticmethod
    async def _next(scan: AsyncScan[Any]) -> Rows | None:
        return await anext(scan, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what `selection` says, and expect what is known to fail."""
    items[:] = [item for item in items if not _is_left_out(item)]
    for item in items:
        mark_known_failure(item)


def _is_left_out(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    parameters = call.params if call else {}
    name = getattr(item, "originalname", item.name)
    url, kind = parameters.get("url"), parameters.get("open_store")
    if item.path.stem == "test_search" and is_search_left_out(url, kind):
        return True
    return is_left_out(name, url, kind)


@cache
def mocked_session() -> boto3.Session:
    """One session for all stores under the mock: each new one reads botocore's models again."""
    return boto3.Session(region_name=REGION)


def create_mocked_table(table: str) -> None:
    client = mocked_session().client("dynamodb")
    client.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
    )
    client.close()


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/features.db"
        return
    if request.param == "mock_aws":
        table = f"contract-{uuid.uuid4().hex}"
        with mock_aws():
            create_mocked_table(table)
            yield f"dynamodb:///{table}?region={REGION}"
        return
    if request.param in SERVERS:
        server: Valkey | ValkeyCluster = request.getfixturevalue(request.param)
        yield server.url(f"{uuid.uuid4().hex}:")
        return
    if request.param == "endpoint":
        endpoint, region = str(ENDPOINT), REGION
    else:
        name = "dynoxide" if request.param == "shared_cache" else request.param
        engine: Engine = request.getfixturevalue(name)
        endpoint, region = engine.endpoint_url, REGION
    cache = ""
    if request.param == "shared_cache":
        valkey: Valkey = request.getfixturevalue("valkey")
        cache = f"&shared_cache_timeout=3&shared_cache={valkey.url(f'{uuid.uuid4().hex}:')}"
    slow = "&read_timeout=60" if request.param in SLOW else ""
    table = f"contract-{uuid.uuid4().hex}"
    create_table(endpoint, table, region=region)
    yield f"dynamodb:///{table}?region={region}&endpoint_url={endpoint}{cache}{slow}"
    client = boto3.client("dynamodb", region_name=region, endpoint_url=endpoint)
    client.delete_table(TableName=table)
    client.close()


def _has_index(schema: list[Any]) -> bool:
    return any(feature.index for each in namespaces(schema).values() for feature in each.features)


def _create_again(url: str, schema: list[Any]) -> None:
    """Create the empty table with the vector indexes of a schema: adding them takes longer."""
    target = parse_url(url)
    assert isinstance(target, DynamoDBTarget)
    (endpoint,) = target.endpoint_urls
    client = boto3.client("dynamodb", region_name=REGION, endpoint_url=endpoint)
    client.delete_table(TableName=target.table)
    client.get_waiter("table_not_exists").wait(
        TableName=target.table, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    client.close()
    create_table(endpoint, target.table, region=REGION, schema=schema)


@pytest.fixture(params=["sync", "async"])
def open_store(request: pytest.FixtureRequest, url: str) -> Iterator[Open]:
    """Opens stores on the table; they are closed at the end."""
    opened: list[AnyStore] = []
    is_mocked = request.node.callspec.params.get("url") == "mock_aws"
    with asyncio.Runner() as runner:

        def open_store(schema: list[Any], **options: Any) -> AnyStore:
            kind = OnlineStore if request.param == "sync" else AsyncOnlineStore
            options.setdefault("timeout", 60)
            if is_mocked:
                options.setdefault("session", mocked_session())
            if not opened and url.startswith("dynamodb:") and _has_index(schema):
                _create_again(url, schema)
            store = AnyStore(kind.open(url, schema, **options), runner)
            opened.append(store)
            return store

        yield open_store
        for store in opened:
            store.close()
