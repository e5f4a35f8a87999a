"""Count the Python functions that a warm read of two keys and a write of one row run through.

Run it by `python -m scripts.count_calls`; `--calls` lists them in order. Only functions and
generators of this package count, each time they are entered anew; resumptions and comprehensions
are counted apart, functions in C not at all. In a table's place is a transport that is one, in
this process, whose functions are not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import chalk_online_store
from chalk_online_store import OnlineStore, features
from chalk_online_store.dynamodb.backend import DynamoDBBackend
from chalk_online_store.dynamodb.messages import Request, Response

_PACKAGE = Path(chalk_online_store.__file__).parent
_COMPREHENSIONS = frozenset(("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"))


@features
class Counted:
    """A namespace of one group."""

    id: int
    risk: float
    name: str


@dataclass
class Count:
    """What one call ran through, in order: functions as `file:name`."""

    calls: list[str] = field(default_factory=list)
    resumed: int = 0
    """How often a generator went on, or a comprehension ran: these are no calls."""

    @property
    def functions(self) -> int:
        """How many different functions there are."""
        return len(set(self.calls))

    @property
    def files(self) -> set[str]:
        """The files that they are in."""
        return {call.partition(":")[0] for call in self.calls}


class Table:
    """A transport that is a table: as much of it as the registry, one row and its reads need."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], dict[str, Any]] = {}

    def send(self, request: Request, timeout: float) -> Response:
        """Answer a request."""
        body = json.loads(request.body)
        document = getattr(self, request.operation)(body)
        data = json.dumps(document).encode()
        return Response(200, {"x-amz-crc32": str(zlib.crc32(data))}, data)

    def warm(self, connections: int, timeout: float) -> int:
        """There is nothing to open."""
        return 0

    def close(self) -> None:
        """There is nothing to close."""

    def Query(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Answer a page of a partition."""
        pk, after = (body["ExpressionAttributeValues"][name]["S"] for name in (":p", ":s"))
        items = [item for (p, s), item in sorted(self.items.items()) if p == pk and s > after]
        return {"Items": items, **_units()}

    def PutItem(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Put an item."""
        self._put(body["Item"])
        return _units()

    def TransactWriteItems(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Put items."""
        for action in body["TransactItems"]:
            self._put(action["Put"]["Item"])
        return {}

    def BatchWriteItem(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Put items."""
        ((table, actions),) = body["RequestItems"].items()
        for action in actions:
            self._put(action["PutRequest"]["Item"])
        units = {"TableName": table, "CapacityUnits": len(actions)}
        return {"UnprocessedItems": {}, "ConsumedCapacity": [units]}

    def BatchGetItem(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Get items."""
        ((table, asked),) = body["RequestItems"].items()
        found = [self.items.get((key["pk"]["S"], key["sk"]["S"])) for key in asked["Keys"]]
        units = {"TableName": table, "CapacityUnits": 1.0}
        return {
            "Responses": {table: [item for item in found if item]},
            "UnprocessedKeys": {},
            "ConsumedCapacity": [units],
        }

    def UpdateItem(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Answer that the item is as the request says: what it is does not matter here."""
        return _units()

    def _put(self, item: dict[str, Any]) -> None:
        self.items[item["pk"]["S"], item["sk"]["S"]] = item


def _units() -> dict[str, Any]:
    return {"ConsumedCapacity": {"TableName": "t", "CapacityUnits": 1.0}}


def counted(call: Callable[[], object]) -> Count:
    """Run a call, and count what it runs through."""
    count = Count()
    entered: dict[int, FrameType] = {}  # Frames are kept, so that an id is no other's.

    def see(frame: FrameType, event: str, argument: object) -> None:
        if event != "call" or (name := _name(frame.f_code)) is None:
            return
        if id(frame) in entered or frame.f_code.co_name in _COMPREHENSIONS:
            count.resumed += 1
        else:
            entered[id(frame)] = frame
            count.calls.append(name)

    sys.setprofile(see)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


def _name(code: CodeType) -> str | None:
    try:
        path = Path(code.co_filename).relative_to(_PACKAGE)
    except ValueError:
        return None
    return f"{path}:{code.co_qualname}"


def counts() -> dict[str, Count]:
    """Count a warm read of two keys, a write of one row in event time, and one on arrival."""
    table = Table()
    store = OnlineStore(DynamoDBBackend("t"), {"": table}, [Counted])
    row = {"id": 1, "risk": 0.5, "name": "a"}
    with store:
        for _ in range(3):
            store.write(Counted, [row, row | {"id": 2}], ordering="arrival")
            store.write(Counted, [row])
            found = store.read(Counted, [1, 2], ["risk", "name"])
            assert found["risk"] == [0.5, 0.5], "what was written is not what is read"
        return {
            "read": counted(lambda: store.read(Counted, [1, 2], ["risk", "name"])),
            "write": counted(lambda: store.write(Counted, [row])),
        }


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", action="store_true", help="list the calls in order")
    options = parser.parse_args()
    for name, count in counts().items():
        if options.calls:
            print(*(f"  {call}" for call in count.calls), sep="\n")
        print(
            f"{name}: {len(count.calls)} calls of {count.functions} functions "
            f"in {len(count.files)} files (and {count.resumed} resumptions and comprehensions)"
        )


if __name__ == "__main__":
    main()
