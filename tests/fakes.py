"""A table that a simulated driver talks to, and that can be told to misbehave."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable
from typing import Any

from chalk_online_store import LRUCache
from chalk_online_store.drivers.simulated import Reply, SimulatedDriver
from chalk_online_store.dynamodb.backend import DynamoDBBackend
from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.effects import All, Operation, Send
from chalk_online_store.operations.core import Core
from chalk_online_store.operations.prepared import ReadRequest
from chalk_online_store.operations.rows import Rows
from chalk_online_store.planning.units import batch_read_units, query_units
from chalk_online_store.report import Report

Fault = Callable[[str, dict[str, Any], float], "Reply | None"]
"""Operation, body and time to a reply instead of the table's own; None to let it answer."""


def answer(status: int, body: dict[str, Any], after: float = 0.005) -> Reply:
    """A response as DynamoDB would send it."""
    data = json.dumps(body).encode()
    return Reply(Response(status, {"x-amz-crc32": str(zlib.crc32(data))}, data), after=after)


def refusal(name: str, status: int = 400, **more: Any) -> Reply:
    """An error as DynamoDB would send it."""
    kind = f"com.amazonaws.dynamodb.v20120810#{name}"
    return answer(status, {"__type": kind, "message": "secret-message", **more})


class FakeTable:
    """Items in a dictionary, behind as much of the wire as reads and bulk writes need.

    `read_at_most` and `write_at_most` are how many keys of a batch are processed; the rest is
    left; `page` is how many items a Query gives at once. `fault` is asked before each request.
    """

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], dict[str, Any]] = {}
        self.read_at_most = 100
        self.write_at_most = 25
        self.page = 1000
        self.counts_units = True
        self.fault: Fault = lambda operation, body, now: None

    def __call__(self, send: Send, now: float) -> Reply:
        """Play the engine."""
        request: Request = send.request
        body = json.loads(request.body)
        return self.fault(request.operation, body, now) or answer(
            200, getattr(self, f"_{request.operation}")(body)
        )

    def _TransactWriteItems(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        for action in body["TransactItems"]:
            self._put(action["Put"]["Item"])
        return {}

    def _Query(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        values = {name[1:]: value["S"] for name, value in body["ExpressionAttributeValues"].items()}
        found = [item for key, item in sorted(self.items.items()) if key[0] == values["p"]]
        if "BETWEEN" in body["KeyConditionExpression"]:
            found = [item for item in found if values["a"] <= item["sk"]["S"] <= values["b"]]
        else:
            found = [item for item in found if item["sk"]["S"] > values["s"]]
        after = body.get("ExclusiveStartKey")
        found = [item for item in found if not after or _key(item) > _key(after)]
        page = found[: self.page]
        more = len(page) < len(found)
        last = {"LastEvaluatedKey": {n: page[-1][n] for n in ("pk", "sk")}} if more else {}
        units = query_units(map(_size, page)) if self.counts_units else 0
        return {"Items": page, **last, "ConsumedCapacity": {"CapacityUnits": units}}

    def _GetItem(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        item = self.items.get(_key(body["Key"]))
        units = batch_read_units([_size(item or {})]) if self.counts_units else 0
        found = {"Item": item} if item else {}
        return {**found, "ConsumedCapacity": {"CapacityUnits": units}}

    def _BatchGetItem(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        ((table, asked),) = body["RequestItems"].items()
        keys, left = asked["Keys"][: self.read_at_most], asked["Keys"][self.read_at_most :]
        found = [self.items[_key(key)] for key in keys if _key(key) in self.items]
        unprocessed = {table: {**asked, "Keys": left}} if left else {}
        units = batch_read_units(_size(self.items.get(_key(key), {})) for key in keys)
        return {
            "Responses": {table: found},
            "UnprocessedKeys": unprocessed,
            "ConsumedCapacity": [{"CapacityUnits": units}],
        }

    def _BatchWriteItem(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        ((table, requests),) = body["RequestItems"].items()
        for request in requests[: self.write_at_most]:
            if "PutRequest" in request:
                self._put(request["PutRequest"]["Item"])
            else:
                self.items.pop(_key(request["DeleteRequest"]["Key"]), None)
        left = requests[self.write_at_most :]
        return {"UnprocessedItems": {table: left} if left else {}}

    def _PutItem(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Put it, whatever is there: nobody else writes."""
        self._put(body["Item"])
        return {}

    def _UpdateItem(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Accept it; only the request itself is looked at."""
        return {}

    def _put(self, item: dict[str, Any]) -> None:
        self.items[_key(item)] = item


def _size(item: dict[str, Any]) -> int:
    """About what an engine would count; of damaged items too."""
    return len(json.dumps(item)) // 2


def _key(attributes: dict[str, Any]) -> tuple[str, str]:
    return attributes["pk"]["S"], attributes["sk"]["S"]


class SimulatedStore:
    """A store on a fake table, in virtual time."""

    def __init__(
        self,
        schema: list[Any],
        lru_cache: LRUCache | None = None,
        coalesce: Any = None,
    ) -> None:
        self.table = FakeTable()
        rng = random.Random(7)
        self.backend = DynamoDBBackend("simulated", rng=rng)
        self.core = Core(
            self.backend, schema, timeout=10, lru_cache=lru_cache, coalesce=coalesce, rng=rng
        )
        self.driver = SimulatedDriver(self.table)

    def read(
        self,
        schema: Any,
        keys: Any,
        features: Any = None,
        *,
        max_staleness: Any = None,
        consistent: bool = False,
        timeout: float | None = None,
    ) -> Rows:
        """As `OnlineStore.read`."""
        prepared = self.core.prepare(schema, features, max_staleness)
        return self.driver.run(self.core.read(prepared, keys, consistent, timeout))

    def read_many(
        self, *requests: ReadRequest[Any], timeout: float | None = None
    ) -> tuple[Rows, ...]:
        """As `OnlineStore.read_many`."""
        operation = self.core.read_many(
            requests, consistent=False, timeout=timeout, defaults=False, raise_failed=False
        )
        return self.driver.run(operation)

    def write(
        self,
        schema: Any,
        rows: Any,
        *,
        observed_at: Any = None,
        ordering: Any = "arrival",
        timeout: float | None = None,
    ) -> Report:
        """As `OnlineStore.write`, in arrival order unless stated."""
        return self.driver.run(
            self.core.write(
                schema, rows, observed_at=observed_at, ordering=ordering, timeout=timeout
            )
        )

    def sent(self, operation: str) -> list[tuple[float, dict[str, Any]]]:
        """The time and body of every request of an operation."""
        return [
            (time, json.loads(send.request.body))
            for time, send in self.driver.sent
            if send.request.operation == operation
        ]


def at_once(store: SimulatedStore, *reads: Operation[Any]) -> list[Any]:
    """Run operations of a store side by side."""

    def main() -> Operation[list[Any]]:
        results: list[Any] = yield All(reads, len(reads))
        return results

    return store.driver.run(main())
