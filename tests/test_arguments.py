"""Every public argument: the wrong kind is refused by its name, and nothing is sent."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
import pytest

from chalk_online_store import (
    AsyncOnlineStore,
    AsyncPersistenceWriter,
    AsyncPreparedRead,
    AsyncTicket,
    BloomFilter,
    ConnectionFailed,
    Feature,
    Hedging,
    InvalidKey,
    InvalidSchema,
    LRUCache,
    Namespace,
    OnlineStore,
    OnlineStoreConfig,
    OnlineStoreError,
    PersistenceWriter,
    PreparedRead,
    ReadRequest,
    Routing,
    Row,
    Rows,
    Ticket,
    Vector,
    VectorIndex,
    Writing,
    explain,
    feature,
    features,
    provisioned_wcu,
)
from chalk_online_store.arguments import MAX_TIMEOUT_SECONDS
from chalk_online_store.dynamodb.backend import DynamoDBBackend
from chalk_online_store.integrations import arrow, frames, health
from chalk_online_store.integrations.chalkpy import namespace_of
from chalk_online_store.testing import FaultProxy, LocalGlobalTable, Throttling


@features
class User:
    id: str
    a: int | None
    v: int | None


FILTERED = Namespace(
    "filtered",
    str,
    [Feature("v", int)],
    online_store_config=OnlineStoreConfig(bloom_filter=BloomFilter(10)),
)


SEARCHED = Namespace("searched", str, [Feature("v", Vector[2], index=VectorIndex())])


class Model(pydantic.BaseModel):
    id: str


class Pair(NamedTuple):
    id: str


ANNOTATIONS = {"id": int, "v": int}


@dataclass
class Instance:
    id: str


FRAME = pd.DataFrame({"id": ["bob"], "v": [1]})
FRAMES = [FRAME, pl.DataFrame(FRAME), pa.table(FRAME), pa.RecordBatch.from_pandas(FRAME)]
TEXTS = ["bob", b"bob", bytearray(b"bob"), memoryview(b"bob"), np.str_("bob")]
SINGLE = [*TEXTS, {"bob": 1}, *FRAMES, 7, object()]
OBSERVED_AT = [
    *["2026-01-01", 1.5, True, {}, object(), pd.NaT, np.datetime64("2026-01-01")],
    *[timedelta(1), FRAME],
]

WRONG: dict[str, list[Any]] = {
    "keys": [*SINGLE, None, [b"bob"], [None], [["a"]], [7]],
    "key": [b"bob", None, ["bob"], 7, {"bob": 1}, FRAME],
    "requests": [[7], [None], [User], [(User, ["bob"])], [ReadRequest(User, "bob")]],
    "names": [*SINGLE, [7], [None], [["a"]], [{}]],
    "rows": [*SINGLE, None, Model(id="bob"), Pair("bob"), Instance("bob"), [7], ["bob"], [None]],
    "row": [*TEXTS, 7, None, [{"id": "bob"}]],
    "schema": [*TEXTS[:3], None, 7, object(), [User], {}],
    "schemas": [*SINGLE, None, User, FILTERED, [7], ["user"]],
    "mapping": [*TEXTS, 7, None, [("a", 1)], {7: 1}],
    "overrides": [*TEXTS, 7, ["v"], {7: "1d"}, {"v": "soon"}, {"v": [1]}, {"v": None}, FRAME],
    "regions": [*SINGLE, None, [7], [None]],
    "timeout": [
        *[float("nan"), float("inf"), float("-inf"), -1, -0.1, True, 1e7, 1e10, 10**400],
        *["5s", b"5", [1], object(), timedelta(seconds=1), np.timedelta64(1, "s")],
        *[np.float64("nan"), np.bool_(1)],
    ],
    "duration": [float("nan"), float("inf"), -1, True, "soon", [], b"1h", pd.Timedelta(1, "ns")],
    "flag": ["false", 1, 0, None, "", []],
    "observed_at": OBSERVED_AT,
    "observed_at of one": [*OBSERVED_AT, [], [pd.Timestamp("2026-01-01", tz="UTC")]],
    "choice": ["latest", b"event", 7, None, [], True],
    "text": [7, None, b"bob", ["bob"]],
    "count": [0, -1, 1.5, float("nan"), "4", True, None, 10**30, []],
    "number": [0, -1, float("nan"), float("inf"), "4", True, [], 10**400],
    "share": [-0.1, 1.1, float("nan"), "0.5", True, [], None],
    "settings": [7, "writing", {}, object()],
    "function": [7, "letters.jsonl", []],
    "predicate": [7, "letters.jsonl", [], None],
    "feature": [7, None, b"v", ["v"], "w"],
    "vector": [*TEXTS, 7, None, [], [1], [1, "a"], [[1, 0], [1]], [float("nan"), 1], [0, 0]],
    "dtype": ["f2", "i8", "text", 7, None, [], object()],
    "missing": ["4", True, [], None, object()],
    "optional mapping": [*TEXTS, 7, [("a", 1)], {7: 1}, {"v": [1, 0]}],
    "url": [7, None, b"sqlite://", ["sqlite://"], "file.db", ""],
    "time": ["2026-01-01", 7, pd.NaT],
}
"""Values of the wrong kind, by kind of argument."""

OPTIONAL = frozenset(
    [
        *["names", "overrides", "timeout", "observed_at", "observed_at of one", "number"],
        *["settings", "requests", "optional mapping"],
    ]
)


# --- the stores, whose engine records requests ---------------------------------------------


class Recorder:
    """A transport that keeps what is sent, and fails."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, request: Any, timeout: float) -> Any:
        self.sent.append(request)
        raise ConnectionFailed("recorded")

    def warm(self, connections: int, timeout: float) -> int:
        self.sent.append(connections)
        return 0

    def close(self) -> None:
        pass


class AsyncRecorder(Recorder):
    async def send(self, request: Any, timeout: float) -> Any:
        return super().send(request, timeout)

    async def warm(self, connections: int, timeout: float) -> int:  # type: ignore[override]
        return super().warm(connections, timeout)

    async def close(self) -> None:  # type: ignore[override]
        pass


RECORDER, ASYNC_RECORDER = Recorder(), AsyncRecorder()
_BACKEND = DynamoDBBackend("recorded", rng=random.Random(7))
STORE = OnlineStore(_BACKEND, {"": RECORDER}, [User, FILTERED, SEARCHED])
ASYNC_STORE = AsyncOnlineStore(_BACKEND, {"": ASYNC_RECORDER}, [User, FILTERED, SEARCHED])
WRITER = PersistenceWriter(STORE)
ROUTED = OnlineStore.open(
    "dynamodb:///features?region=us-east-1,us-west-2"
    "&endpoint_url=http://127.0.0.1:9,http://127.0.0.1:9",
    [User],
)


async def submit_async(*arguments: Any, **options: Any) -> None:
    writer = AsyncPersistenceWriter(ASYNC_STORE)
    try:
        await writer.submit(*arguments, **options)
    finally:
        await writer.close()


def ticket(cls: Any) -> Any:
    """A ticket of rows that nobody writes."""
    return cls(1, 0, 0.0, WRITER._core)


def awaited(method: Callable[..., Any]) -> Callable[..., Any]:
    """A coroutine function as a function."""

    def call(*arguments: Any, **options: Any) -> Any:
        async def use() -> Any:
            return await method(*arguments, **options)

        return asyncio.run(use())

    return call


@dataclass(frozen=True)
class Case:
    """A public callable: arguments that are right, and the kind of each parameter."""

    call: Callable[..., Any]
    right: dict[str, Any]
    kinds: dict[str, str]


READ = {"max_staleness": "overrides", "consistent": "flag", "timeout": "timeout"}
READ_ROWS = {**READ, "defaults": "flag", "raise_failed": "flag"}
WRITE = {"observed_at": "observed_at", "ordering": "choice", "timeout": "timeout"}
RESULT = {
    "query": "text",
    "inputs": "mapping",
    "version": "text",
    "max_staleness": "duration",
    "timeout": "timeout",
}
RESULT_ARGUMENTS = {"query": "q", "inputs": {}}
OPEN = {
    "url": "url",
    "schema": "schemas",
    "timeout": "timeout",
    "lru_cache": "settings",
    "coalesce": "duration",
    "max_future_skew": "duration",
    "routing": "settings",
}


def store_cases(store: Any, wrap: Callable[[Any], Any]) -> dict[str, Case]:
    """The methods of a store, sync or async."""
    of_one = {**WRITE, "observed_at": "observed_at of one"}
    del of_one["ordering"]
    return {
        "open": Case(type(store).open, {"url": "sqlite://", "schema": [User]}, OPEN),
        "read": Case(
            wrap(store.read),
            {"schema": User, "keys": ["a"]},
            {"schema": "schema", "keys": "keys", "features": "names", **READ_ROWS},
        ),
        "get": Case(
            wrap(store.get),
            {"schema": User, "key": "a"},
            {"schema": "schema", "key": "key", "features": "names", **READ_ROWS},
        ),
        "read_many": Case(
            lambda requests, **options: wrap(store.read_many)(*requests, **options),
            {"requests": [ReadRequest(User, ["a"])]},
            {
                "requests": "requests",
                **{name: kind for name, kind in READ_ROWS.items() if name != "max_staleness"},
            },
        ),
        "search": Case(
            wrap(store.search),
            {"schema": SEARCHED, "feature": "v", "vector": [1, 0]},
            {
                "schema": "schema",
                "feature": "feature",
                "vector": "vector",
                "k": "count",
                "where": "optional mapping",
                "features": "names",
                "max_scanned": "count",
                **{name: kind for name, kind in READ_ROWS.items() if name != "consistent"},
            },
        ),
        "prepare": Case(
            store.prepare,
            {"schema": User},
            {
                "schema": "schema",
                "features": "names",
                "max_staleness": "overrides",
                "defaults": "flag",
            },
        ),
        "warm": Case(wrap(store.warm), {}, {"connections": "count", "timeout": "timeout"}),
        "health": Case(wrap(store.health), {}, {"timeout": "timeout"}),
        "write": Case(
            wrap(store.write),
            {"schema": User, "rows": [{"id": "a", "v": 1}]},
            {"schema": "schema", "rows": "rows", **WRITE},
        ),
        "delete": Case(
            wrap(store.delete),
            {"schema": User, "keys": ["a"]},
            {
                "schema": "schema",
                "keys": "keys",
                "features": "names",
                **WRITE,
                "observed_at": "observed_at of one",
            },
        ),
        "write_result": Case(
            wrap(store.write_result),
            {**RESULT_ARGUMENTS, "features": {}},
            {**RESULT, "features": "mapping", "observed_at": "observed_at of one"},
        ),
        "read_result": Case(
            wrap(store.read_result), RESULT_ARGUMENTS, {**RESULT, "consistent": "flag"}
        ),
        "drop": Case(
            wrap(store.drop),
            {"schema": User, "features": ["v"]},
            {"schema": "schema", "features": "names", "timeout": "timeout"},
        ),
        "rename": Case(
            wrap(store.rename),
            {"schema": User, "old": "v", "new": "w"},
            {"schema": "schema", "old": "text", "new": "text", "timeout": "timeout"},
        ),
        "scan": Case(
            store.scan,
            {"schema": User},
            {
                "schema": "schema",
                "features": "names",
                "max_staleness": "overrides",
                "defaults": "flag",
                "segments": "count",
                "page_items": "count",
                "rcu_per_second": "number",
                "token": "optional text",
                "timeout": "timeout",
            },
        ),
        "count": Case(
            wrap(store.count),
            {"schema": User},
            {
                "schema": "schema",
                "segments": "count",
                "rcu_per_second": "number",
                "timeout": "timeout",
            },
        ),
        "delete_where": Case(
            wrap(store.delete_where),
            {"schema": User, "predicate": bool},
            {
                "schema": "schema",
                "predicate": "predicate",
                "features": "names",
                "dry_run": "flag",
                "segments": "count",
                "rcu_per_second": "number",
                "timeout": "timeout",
            },
        ),
        "forget": Case(
            wrap(store.forget),
            {"schema": User, "key": "a"},
            {"schema": "schema", "key": "key", "timeout": "timeout"},
        ),
        "build_bloom_filters": Case(
            wrap(store.build_bloom_filters),
            {"schemas": [FILTERED]},
            {
                "schemas": "schemas",
                "wait": "timeout",
                "segments": "count",
                "rcu_per_second": "number",
                "progress": "function",
            },
        ),
    }


def prepared_cases(prepared: Any, wrap: Callable[[Any], Any]) -> dict[str, Case]:
    kinds = {"consistent": "flag", "timeout": "timeout", "raise_failed": "flag"}
    return {
        "read": Case(wrap(prepared.read), {"keys": ["a"]}, {"keys": "keys", **kinds}),
        "get": Case(wrap(prepared.get), {"key": "a"}, {"key": "key", **kinds}),
        "matrix": Case(
            wrap(prepared.matrix),
            {"keys": ["a"]},
            {
                "keys": "keys",
                "dtype": "dtype",
                "missing": "missing",
                "skip_failed": "flag",
                "consistent": "flag",
                "timeout": "timeout",
            },
        ),
    }


SUBMIT = {
    "schema": "schema",
    "rows": "rows",
    "observed_at": "observed_at",
    "priority": "choice",
    "on_invalid": "choice",
}
WRITER_RESULT = {
    **{name: kind for name, kind in RESULT.items() if name != "timeout"},
    "features": "mapping",
    "observed_at": "observed_at of one",
    "priority": "choice",
}
WRITER_OPTIONS = {
    "settings": "settings",
    "spool_bytes": "count",
    "dead_letters": "function",
}
SUBMITTED = {"schema": User, "rows": [{"id": "a", "v": 1}]}
TIMEOUT = {"timeout": "timeout"}
TABLE = {"schema": User, "table": FRAME}
WRITE_TABLE = {
    "schema": "schema",
    "table": "table",
    "key": "columns",
    "observed_at": "time",
    "time_zone": "optional text",
    "ordering": "choice",
    "chunk": "count",
    "timeout": "timeout",
}
READ_TABLE = {
    "schema": "schema",
    "keys": "keys of a table",
    "features": "names",
    "key": "columns",
    **READ,
    "chunk": "count",
}
SUBMIT_TABLE = {
    name: kind for name, kind in WRITE_TABLE.items() if name not in ("ordering", "timeout")
} | {"priority": "choice"}
WRONG |= {
    "table": [*TEXTS, 7, None, {"id": ["a"]}, [{"id": "a"}], FRAME["v"]],
    "columns": [7, {"id": 1}, FRAME, [7], ["id", "v"], b"id"],
    "optional text": [7, b"UTC", ["UTC"]],
    "keys of a table": [
        *(wrong for wrong in SINGLE if not any(wrong is frame for frame in FRAMES)),
        *(None, [b"bob"], [None], np.str_("bob"), np.array("bob")),
    ],
    "optional duration": [float("nan"), -1, True, "soon", [], b"1h"],
    "bytes": [-1, 1.5, float("nan"), "4", True, None],
    "optional count": [0, -1, 1.5, "4", True],
    "annotation": [7, "int", [], object()],
    "name": [7, b"x", ["x"], "", "a b"],
    "features": [*SINGLE, None, [7], ["v"], [("v", int)]],
    "optional name": [7, b"x", ["x"], "a b"],
    "caching": ["never", 7, None, []],
    "probability": [0, 0.6, -1, float("nan"), "0.5", True],
    "between": [0, 1, -1, float("nan"), "0.5", True, None],
    "below 1": [1, -1, float("nan"), "0.5", True, None],
    "positive duration": [0, "0s", "infinity", float("nan"), -1, True, "soon", [], b"1h", None],
    "time above 0": [0, "0s", float("nan"), -1, True, "soon", [], b"1h"],
}
OPTIONAL |= {"annotation", "columns", "time", "function", "optional duration"}
OPTIONAL |= {"optional text", "optional name", "optional count"}

CASES: dict[str, dict[str, Case]] = {
    "OnlineStore": store_cases(STORE, lambda method: method),
    "AsyncOnlineStore": store_cases(ASYNC_STORE, awaited),
    "PreparedRead": prepared_cases(STORE.prepare(User, ["v"]), lambda method: method),
    "AsyncPreparedRead": prepared_cases(ASYNC_STORE.prepare(User, ["v"]), awaited),
    "PersistenceWriter": {
        "__init__": Case(PersistenceWriter, {"store": STORE}, WRITER_OPTIONS),
        "submit": Case(WRITER.submit, SUBMITTED, SUBMIT),
        "write_result": Case(
            WRITER.write_result, {**RESULT_ARGUMENTS, "features": {}}, WRITER_RESULT
        ),
        "flush": Case(WRITER.flush, {}, TIMEOUT),
        "drain": Case(WRITER.drain, {}, TIMEOUT),
        "close": Case(WRITER.close, {}, TIMEOUT),
    },
    "AsyncPersistenceWriter": {
        "__init__": Case(AsyncPersistenceWriter, {"store": ASYNC_STORE}, WRITER_OPTIONS),
        "submit": Case(awaited(submit_async), SUBMITTED, SUBMIT),
        **{
            name: Case(awaited(getattr(AsyncPersistenceWriter(ASYNC_STORE), name)), {}, TIMEOUT)
            for name in ("flush", "drain", "close")
        },
    },
    "Ticket": {"wait": Case(ticket(Ticket).wait, {}, {"until": "choice", **TIMEOUT})},
    "AsyncTicket": {
        "wait": Case(awaited(ticket(AsyncTicket).wait), {}, {"until": "choice", **TIMEOUT})
    },
    "functions": {
        "explain": Case(
            explain,
            {"schema": User, "row": {"id": "a"}},
            {"schema": "schema", "row": "row", "observed_at": "observed_at of one"},
        ),
        "provisioned_wcu": Case(provisioned_wcu, {"url": "sqlite://"}, {"url": "url"}),
        "features": Case(
            lambda **options: features(**options)(
                type("Other", (), {"__annotations__": ANNOTATIONS})
            ),
            {},
            {
                "name": "optional name",
                "max_staleness": "duration",
                "online_store_config": "settings",
            },
        ),
        "feature": Case(
            lambda **options: Feature("v", int, **feature(**options).options),
            {},
            {
                "primary": "flag",
                "max_staleness": "optional duration",
                "group": "name",
                "cache_nulls": "caching",
                "cache_defaults": "caching",
            },
        ),
    },
    "schema": {
        "Feature": Case(
            Feature,
            {"name": "v", "annotation": int},
            {
                "name": "name",
                "annotation": "annotation",
                "max_staleness": "duration",
                "group": "name",
                "cache_nulls": "caching",
                "cache_defaults": "caching",
                "index": "settings",
            },
        ),
        "Namespace": Case(
            Namespace,
            {"name": "user", "primary_key": int, "features": []},
            {
                "name": "name",
                "primary_key": "annotation",
                "features": "features",
                "key_name": "name",
                "online_store_config": "settings",
                "observed_at_name": "name",
                "excluded": "mapping",
            },
        ),
        "OnlineStoreConfig": Case(
            OnlineStoreConfig, {}, {"lru_cache": "settings", "bloom_filter": "settings"}
        ),
        "LRUCache": Case(
            LRUCache,
            {"max_size": 1},
            {
                "max_size": "count",
                "ttl": "duration",
                "store_cache_misses": "flag",
                "max_bytes": "optional count",
                "ttl_jitter": "below 1",
                "refresh_ahead": "below 1",
                "stale_while_revalidate": "duration",
            },
        ),
        "BloomFilter": Case(
            BloomFilter,
            {"expected_entities": 10},
            {
                "expected_entities": "count",
                "target_false_positive_rate": "probability",
                "refresh": "time above 0",
                "partitions": "count",
            },
        ),
        "Hedging": Case(
            Hedging, {}, {"percentile": "between", "budget": "between", "burst": "count"}
        ),
        "Routing": Case(
            Routing,
            {},
            {
                "reads": "choice",
                "writes": "choice",
                "hedging": "settings",
                "max_lag": "time above 0",
                "beyond_max_lag": "choice",
                "probe_every": "time above 0",
                "return_after": "time above 0",
                "return_over": "time above 0",
                "heartbeats": "flag",
            },
        ),
        "Writing": Case(
            Writing,
            {},
            {
                "ordering": "choice",
                "max_rows": "count",
                "max_bytes": "count",
                "when_full": "choice",
                "block_timeout": "positive duration",
                "max_batch_age": "positive duration",
                "wcu_per_second": "number",
                "max_concurrency": "count",
                "write_timeout": "positive duration",
                "replay_window": "positive duration",
                "replay_bytes": "bytes",
            },
        ),
    },
    "frames": {
        "write_table": Case(frames.write_table, {"store": STORE, **TABLE}, WRITE_TABLE),
        "write_table_async": Case(
            awaited(frames.write_table_async), {"store": ASYNC_STORE, **TABLE}, WRITE_TABLE
        ),
        "submit_table": Case(frames.submit_table, {"writer": WRITER, **TABLE}, SUBMIT_TABLE),
        "batches_of": Case(
            lambda **options: list(frames.batches_of(**options)),
            TABLE,
            {
                "schema": "schema",
                "table": "table",
                "key": "columns",
                "time_zone": "optional text",
                "chunk": "count",
            },
        ),
        "read_table": Case(
            frames.read_table, {"store": STORE, "schema": User, "keys": ["a"]}, READ_TABLE
        ),
        "read_table_async": Case(
            awaited(frames.read_table_async),
            {"store": ASYNC_STORE, "schema": User, "keys": ["a"]},
            READ_TABLE,
        ),
    },
    "adapters": {
        "arrow.namespace_of": Case(
            arrow.namespace_of,
            {"name": "user", "schema": pa.schema({"id": pa.int64()}), "key": ["id"]},
            {"name": "name", "key": "regions", "leave_out": "regions"},
        ),
        "arrow.rows_of": Case(
            arrow.rows_of,
            {"batch": FRAMES[3], "key": ["id"], "key_name": "id"},
            {"key": "regions"},
        ),
        "chalkpy.namespace_of": Case(namespace_of, {"cls": User}, {"leave_out": "regions"}),
        "health.wsgi": Case(
            health.wsgi,
            {"store": STORE},
            {"require": "choice", "cache": "duration", "timeout": "timeout"},
        ),
        "health.asgi": Case(
            health.asgi,
            {"store": ASYNC_STORE},
            {"require": "choice", "cache": "duration", "timeout": "timeout"},
        ),
        "LocalGlobalTable": Case(LocalGlobalTable, {}, {"regions": "regions"}),
        "FaultProxy.inject": Case(
            FaultProxy("http://127.0.0.1:9").inject,
            {"fault": Throttling()},
            {"share": "share", "operations": "names"},
        ),
    },
    "routed": {
        "order_regions": Case(
            ROUTED.order_regions,
            {},
            {
                "pinned": "text",
                "drained": "regions",
                "evacuated": "regions",
                "timeout": "timeout",
            },
        ),
    },
}
"""Every public callable with arguments that are checked, by class."""

UNCHECKED = {
    "session": "boto3's own class, or one like it",
    "default": "a default may be any value of the feature",
    "spool": "a path, which Python checks",
    "store": "checked when a writer is made",
    "cls": "a class",
}
PUBLIC = {
    "OnlineStore": OnlineStore,
    "AsyncOnlineStore": AsyncOnlineStore,
    "PreparedRead": PreparedRead,
    "AsyncPreparedRead": AsyncPreparedRead,
    "PersistenceWriter": PersistenceWriter,
    "AsyncPersistenceWriter": AsyncPersistenceWriter,
    "Ticket": Ticket,
    "AsyncTicket": AsyncTicket,
}
NOT_CALLED_BY_USERS = {
    *{"__init__", "begin_anew", "close_at_exit", "kept", "ended", "fail", "recount"},
    *{"order_regions"},  # Of a store in several regions: "routed".
}


def told() -> Iterator[Any]:
    for group, cases in CASES.items():
        for name, case in cases.items():
            for parameter, kind in case.kinds.items():
                yield pytest.param(case, parameter, kind, id=f"{group}.{name}({parameter})")


@pytest.mark.parametrize(("case", "parameter", "kind"), list(told()))
def test_a_wrong_kind_is_refused_by_name_before_anything_is_sent(
    case: Case, parameter: str, kind: str
) -> None:
    """Each wrong value raises our error, which names the argument and says what to pass."""
    wrong = WRONG[kind]
    if kind not in OPTIONAL and kind != "function" and _default(case, parameter) is not None:
        wrong = [*wrong, None] if not any(value is None for value in wrong) else wrong
    if _default(case, parameter) is None:
        wrong = [value for value in wrong if value is not None]
    RECORDER.sent.clear()
    ASYNC_RECORDER.sent.clear()
    faults = [(value, fault) for value in wrong if (fault := _fault(case, parameter, value))]
    assert faults == []
    assert RECORDER.sent == []
    assert ASYNC_RECORDER.sent == []


def _fault(case: Case, parameter: str, value: Any) -> str:
    """What is wrong with how a wrong value is refused; "" for nothing."""
    try:
        case.call(**{**case.right, parameter: value})
    except OnlineStoreError as error:
        message = str(error)
        if not any(word in message for word in _SAID.get(parameter, [parameter])):
            return f"names no argument: {message}"
        return message if "bob" in message and parameter not in ("schema", "schemas") else ""
    except Exception as error:  # noqa: BLE001 - a raw error is what is looked for.
        return repr(error)
    return "taken"


def _default(case: Case, parameter: str) -> Any:
    if parameter in case.right:
        return case.right[parameter]
    try:
        found = inspect.signature(case.call).parameters
    except ValueError:
        return ...
    return found[parameter].default if parameter in found else ...


_SAID = {
    "schema": ["feature class", "schema"],
    "schemas": ["feature class", "schemas", "Bloom"],
    "keys": ["keys", "primary key"],
    "requests": ["requests", "keys"],
    "features": ["features", "feature"],
    "rows": ["rows", "row"],
    "row": ["row"],
    "table": ["table", "column", "primary key"],
    "key": ["key", "column"],
    "url": ["URL", "url"],
    "annotation": ["annotation", "type", "Feature"],
    "primary_key": ["Primary key", "primary key"],
    "name": ["name"],
    "key_name": ["name"],
    "observed_at_name": ["name"],
    "group": ["group"],
    "operations": ["operations"],
    "coalesce": ["coalesce"],
    "max_staleness": ["max_staleness", "feature"],
    "observed_at": ["observed_at", "no column"],
}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_parameter_is_in_the_table(name: str) -> None:
    """A new parameter of a public method needs a validator, and a row here."""
    for method, function in inspect.getmembers(PUBLIC[name], callable):
        if method.startswith("_") or method in NOT_CALLED_BY_USERS:
            continue
        parameters = {*inspect.signature(function).parameters} - {"self", *UNCHECKED}
        if method == "write_result" and name == "AsyncPersistenceWriter":
            continue  # By the same function as the other's.
        checked = CASES[name][method].kinds if method in CASES[name] else {}
        assert parameters == {*checked}, method


@pytest.mark.parametrize(
    "cls",
    [Feature, Namespace, LRUCache, BloomFilter, Hedging, Routing, Writing],
)
def test_every_setting_is_in_the_table(cls: Any) -> None:
    """A new field of a settings class needs a validator, and a row here."""
    parameters = {*inspect.signature(cls).parameters} - UNCHECKED.keys()
    assert parameters == {*CASES["schema"][cls.__name__].kinds}


# --- what is taken, and the exact texts ----------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        ["a"],
        ("a",),
        {"a"},
        frozenset("a"),
        dict.fromkeys("a").keys(),
        iter(["a"]),
        (key for key in "a"),
        pd.Series(["a"]),
        pd.Index(["a"]),
        np.array(["a"]),
        pl.Series(["a"]),
    ],
    ids=lambda keys: type(keys).__name__,
)
def test_a_list_of_keys_may_be_any_iterable(keys: Any) -> None:
    """Lists, tuples, sets, views, generators, arrays and columns are lists of keys."""
    with OnlineStore.open("sqlite://", [User]) as store:
        store.write(User, [{"id": "a", "v": 1}])
        assert store.read(User, keys, ["v"]).column("v") == [1]


@pytest.mark.parametrize("timeout", [5, 5.0, np.float32(5), np.int64(5), None, MAX_TIMEOUT_SECONDS])
def test_a_timeout_may_be_any_real_number(timeout: Any) -> None:
    """Python's and numpy's numbers are timeouts, up to the limit."""
    with OnlineStore.open("sqlite://", [User]) as store:
        assert store.read(User, ["a"], timeout=timeout).statuses("v") == ["missing"]


def test_the_remedies_are_said() -> None:
    """Messages say what was meant, and do not repeat the key."""
    with pytest.raises(InvalidKey) as key:
        STORE.delete(User, "bob")
    assert str(key.value) == ("keys must be a list of primary keys; got str. Did you mean [key]?")
    with pytest.raises(OnlineStoreError) as row:
        STORE.write(User, {"id": "bob"})
    assert str(row.value) == (
        "rows must be a list of mappings or row objects; got dict. Did you mean [row]?"
    )
    wrong_rows, wrong_schema = cast("Any", FRAME), cast("Any", User)
    with pytest.raises(OnlineStoreError, match="write_table"):
        STORE.write(User, wrong_rows)
    with pytest.raises(InvalidSchema, match=r"Did you mean \[schema\]\?"):
        OnlineStore.open("sqlite://", wrong_schema)


def test_an_instance_of_a_class_is_not_shown() -> None:
    """What stands in the place of a feature class may hold values, which no message has."""
    with pytest.raises(InvalidSchema) as caught:
        STORE.read(Instance("bob"), ["a"])  # type: ignore[call-overload]
    assert "bob" not in str(caught.value)


def test_missing_values_of_an_array_are_exact() -> None:
    """`to_numpy` refuses what its array would cut off or cannot hold."""
    with OnlineStore.open("sqlite://", [User]) as store:
        rows = store.read(User, ["a"])
        store.write(User, [{"id": "b", "v": 1}])
        rows = store.read(User, ["a", "b"])
        for missing in (float("nan"), 0.5, "x", object(), 10**30, [1, 2, 3]):
            with pytest.raises(OnlineStoreError, match="missing="):
                rows.to_numpy("v", missing=missing)
        assert rows.to_numpy("v", missing=-1).tolist() == [-1, 1]


def test_a_name_of_a_row_is_a_text() -> None:
    """Rows are asked for features by name, and refuse anything else."""
    with OnlineStore.open("sqlite://", [User]) as store:
        rows = store.read(User, ["a"])
    assert isinstance(rows, Rows)
    assert isinstance(rows[0], Row)
    wrong: list[Any] = [7, None, ["v"], b"v"]
    for name in wrong:
        for ask in (rows.column, rows.statuses, rows.times, rows.to_numpy, rows[0].status):
            with pytest.raises(OnlineStoreError):
                ask(name)
