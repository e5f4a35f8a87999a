"""Tables of what clients wrote, for the canned server.

Not an emulator: conditions always hold, and a key that was never written is answered with the
values of another. What a client wrote is kept as DynamoDB keeps it: compact,
numbers without trailing zeros. Imports the standard library alone.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from decimal import Context
from typing import Any, TypeAlias

Item: TypeAlias = dict[str, dict[str, Any]]
Key: TypeAlias = tuple[str, ...]

KEYS = ("pk", "sk", "entity_id")
"""The names of key attributes, whichever client made the table."""
READS = (b"BatchGetItem", b"GetItem", b"Query")
_ASSIGNMENT = re.compile(r"(#?[\w.]+)\s*=\s*(:\w+)")
_EXACT = Context(prec=40)


class Tables:
    """All tables, by name."""

    def __init__(self) -> None:
        self._tables: dict[str, Table] = defaultdict(Table)
        self._operations: dict[str, Callable[[Any], Any]] = {
            "BatchGetItem": self._batch_get,
            "GetItem": self._get,
            "Query": self._query,
            "BatchWriteItem": self._batch_write,
            "PutItem": self._put,
            "UpdateItem": self._update,
            "TransactWriteItems": self._transact,
        }

    def perform(self, operation: bytes, body: bytes) -> bytes:
        """The body of the response to a request; raises `KeyError` for an unknown operation."""
        result = self._operations[operation.decode()](json.loads(body))
        return result if isinstance(result, bytes) else compact(result)

    def forget(self, table: str) -> None:
        """Empty a table of what `Query` does not find."""
        self._tables[table].forget()

    def _batch_get(self, body: Any) -> bytes:
        ((name, asked),) = body["RequestItems"].items()
        table = self._tables[name]
        wanted = projected(asked)
        items = [table.rendered(key, wanted) for key in asked["Keys"]]
        random.Random(1).shuffle(items)  # Batches come in no order, as DynamoDB's do.
        return b'{"ConsumedCapacity":[%b],"Responses":{%b:[%b]},"UnprocessedKeys":{}}' % (
            _units(name, len(items) / 2),
            compact(name),
            b",".join(items),
        )

    def _get(self, body: Any) -> bytes:
        name = body["TableName"]
        item = self._tables[name].rendered(body["Key"], projected(body))
        return b'{"ConsumedCapacity":%b,"Item":%b}' % (_units(name, 0.5), item)

    def _query(self, body: Any) -> Any:
        """The registered items of a partition, after a sort key: the two values in the body."""
        name, values = body["TableName"], body["ExpressionAttributeValues"].values()
        items = self._tables[name].registered({value["S"] for value in values})
        return {
            "ConsumedCapacity": {"CapacityUnits": 1.0, "TableName": name},
            "Count": len(items),
            "Items": items,
            "ScannedCount": len(items),
        }

    def _batch_write(self, body: Any) -> bytes:
        ((name, requests),) = body["RequestItems"].items()
        for request in requests:
            self._tables[name].put(request["PutRequest"]["Item"])
        return b'{"ConsumedCapacity":[%b],"UnprocessedItems":{}}' % _units(name, len(requests))

    def _put(self, body: Any) -> bytes:
        self._tables[body["TableName"]].put(body["Item"])
        return b'{"ConsumedCapacity":%b}' % _units(body["TableName"], 1)

    def _update(self, body: Any) -> bytes:
        item = self._tables[body["TableName"]].update(body["Key"], dict(assignments(body)))
        answer = b'{"ConsumedCapacity":%b' % _units(body["TableName"], 1)
        if body.get("ReturnValues", "NONE") != "NONE":
            answer += b',"Attributes":' + compact(item)
        return answer + b"}"

    def _transact(self, body: Any) -> Any:
        for action in body["TransactItems"]:
            self._tables[action["Put"]["TableName"]].register(action["Put"]["Item"])
        return {}


class Table:
    """Items by key, as the JSON of their attributes beside the key."""

    def __init__(self) -> None:
        self.items: dict[Key, Item] = {}
        self._registered: list[Item] = []
        self._rendered: list[bytes] = []
        self._rendered_of: frozenset[str] | None = None
        self._places: dict[Key, int] = {}

    def put(self, item: Item) -> None:
        """Write an item whole."""
        key = {name: value for name, value in item.items() if name in KEYS}
        rest = {name: _stored(value) for name, value in item.items() if name not in KEYS}
        self.items[_key(key)] = rest
        self._rendered.clear()

    def update(self, key: Item, values: Item) -> Item:
        """Set attributes of an item; the whole item as it then is."""
        self.put(key | self.items.get(_key(key), {}) | values)
        return key | self.items[_key(key)]

    def forget(self) -> None:
        """Lose every item but the registered ones."""
        self.items.clear()
        self._rendered.clear()

    def register(self, item: Item) -> None:
        """Write an item that `registered` will find, and that is never forgotten."""
        self._registered.append(item)

    def registered(self, asked: set[str]) -> list[Item]:
        """What was registered under a partition key, after a sort key: `asked` has both."""
        found = [
            item
            for item in self._registered
            if item["pk"]["S"] in asked and item["sk"]["S"] > min(asked - {item["pk"]["S"]})
        ]
        return sorted(found, key=lambda item: str(item["sk"]["S"]))

    def rendered(self, key: Item, wanted: frozenset[str] | None = None) -> bytes:
        """An item as JSON, of all attributes or those that are wanted.

        One that nobody wrote has the values of another.
        """
        if not self.items:
            raise KeyError("the table is empty")
        if not self._rendered or self._rendered_of != wanted:
            self._rendered_of = wanted
            self._rendered = [_members(item, wanted) for item in self.items.values()]
            self._places = {key: place for place, key in enumerate(self.items)}
        text = _key(key)
        place = self._places.get(text, zlib.crc32("".join(text).encode()) % len(self._rendered))
        return b"{%b,%b}" % (_members(key), self._rendered[place])


def assignments(body: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The attributes that an UpdateItem sets."""
    names, values = body.get("ExpressionAttributeNames", {}), body["ExpressionAttributeValues"]
    sets = body["UpdateExpression"].partition(" REMOVE ")[0].removeprefix("SET ")
    for name, placeholder in _ASSIGNMENT.findall(sets):
        yield names.get(name, name), values[placeholder]


def compact(value: Any) -> bytes:
    """JSON as DynamoDB writes it."""
    return json.dumps(value, separators=(",", ":")).encode()


def projected(asked: Any) -> frozenset[str] | None:
    """The attributes that a read asks for, each of them whole; None for all."""
    if "ProjectionExpression" not in asked:
        return None
    names = asked.get("ExpressionAttributeNames", {})
    paths = asked["ProjectionExpression"].split(",")
    tops = (path.strip().partition(".")[0].partition("[")[0] for path in paths)
    return frozenset(names.get(top, top) for top in tops)


def _members(item: Item, wanted: frozenset[str] | None = None) -> bytes:
    if wanted is not None:
        item = {name: value for name, value in item.items() if name in wanted}
    return compact(item)[1:-1]


def _key(attributes: Item) -> Key:
    return tuple(str(attributes[name]["S"]) for name in KEYS if name in attributes)


def _units(table: str, units: float) -> bytes:
    return compact({"CapacityUnits": float(units), "TableName": table})


def _stored(value: dict[str, Any]) -> dict[str, Any]:
    return {"N": _normal(value["N"])} if "N" in value else value


def _normal(number: str) -> str:
    """As DynamoDB gives a number back: `1.50` as `1.5`, `2E+3` as `2000`."""
    exact = _EXACT.create_decimal(number).normalize(_EXACT)
    return f"{exact:f}"
