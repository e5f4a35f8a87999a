"""The clients that checks send by, and the keys of the items that are removed in the end."""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec

from chalk_online_store.backend import Call, GroupKeys, RowOrError
from chalk_online_store.codec.changes import Attributes, Change, parse_item, render_fresh
from chalk_online_store.codec.layout import ALPHABET, RESERVED, ItemKey, TableLayout
from chalk_online_store.codec.raw_items import ATTRIBUTES, RawItemShape
from chalk_online_store.codec.shapes import Shape
from chalk_online_store.codec.sizes import item_size
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.drivers.sync import SyncDriver, Transport
from chalk_online_store.dynamodb.backend import DynamoDBBackend
from chalk_online_store.dynamodb.bodies import Bodies
from chalk_online_store.dynamodb.matching import Expected, Matcher
from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.dynamodb.wire import Wire
from chalk_online_store.effects import Operation
from chalk_online_store.errors import (
    ConditionFailed,
    ItemTooLarge,
    OnlineStoreError,
    RequestRefused,
)
from chalk_online_store.provisioning.control_plane import ControlPlane
from chalk_online_store.report import Report
from chalk_online_store.retry import RetryPolicy

# --- Waiting for a condition, by polling ---------------------------------------------------


_FIRST_PAUSE_SECONDS, _PAUSE_SHARE = 0.02, 0.1
"""Pauses between reads: a lag is measured to a tenth, by a few dozen reads."""


def wait_until(is_done: Callable[[], bool], seconds: float) -> float | None:
    """Wait for a condition, and return the seconds that it took; None after `seconds`."""
    began = time.monotonic()
    while not is_done():
        passed = time.monotonic() - began
        if passed >= seconds:
            return None
        time.sleep(max(_FIRST_PAUSE_SECONDS, passed * _PAUSE_SHARE))
    return time.monotonic() - began


T = TypeVar("T")

CALL_SECONDS = 120.0
"""A table with little provisioned capacity takes that long for items of 400 KB."""

ATTEMPT_SECONDS = 30.0
"""Long enough for 16 MB over a home connection."""

LIFETIME_SECONDS = 3600
"""After this time TTL removes the items of a run that was killed."""

PARTITION = f"{RESERVED}verify:"
"""Begins the partition keys of all scratch items. No entity has such a key."""


class ResponseLog:
    """The headers and latencies of a run's responses. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.responses = 0
        self.checksums = 0
        """Responses with a CRC32 that fits their body."""
        self.damaged = 0
        """Responses with another CRC32."""
        self.request_ids: set[str] = set()
        self.latencies: dict[str, list[float]] = {}
        """Seconds of each request, by operation."""

    def add(self, operation: str, seconds: float, response: Response) -> None:
        """Take note of a response."""
        checksum = response.headers.get("x-amz-crc32", "").strip()
        fits = checksum == str(zlib.crc32(response.body))
        with self._lock:
            self.responses += 1
            self.checksums += fits
            self.damaged += bool(checksum) and not fits
            self.request_ids.add(response.headers.get("x-amzn-requestid", ""))
            self.latencies.setdefault(operation, []).append(seconds)


class RecordingTransport:
    """A transport for threads that logs the responses of another one."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.log = ResponseLog()

    def send(self, request: Request, timeout: float) -> Response:
        """Like the other transport's."""
        began = time.perf_counter()
        response: Response = self._transport.send(request, timeout)
        self.log.add(request.operation, time.perf_counter() - began, response)
        return response

    def warm(self, connections: int, timeout: float) -> int:
        """Like the other transport's."""
        return self._transport.warm(connections, timeout)

    def close(self) -> None:
        """Close the other transport."""
        self._transport.close()


class Client:
    """The table in one region, by the requests, the wire and the driver that stores use.

    `backend` sends what stores send. `bodies`, `matcher` and `send` are for single requests.
    """

    def __init__(self, target: DynamoDBTarget, region: str, transport: Transport) -> None:
        self.table = target.table
        self.layout = target.layout
        self.region = region
        self.report = Report()
        """The cost of all calls of this client."""
        self.transport = RecordingTransport(transport)
        self.bodies = Bodies(target.table, target.layout)
        self.matcher = Matcher(target.table, target.layout)
        self.backend = DynamoDBBackend(
            target.table, target.layout, attempt_timeout=ATTEMPT_SECONDS, region=region
        )
        self._wire = Wire(target.table, RetryPolicy(), ATTEMPT_SECONDS, random.Random())
        self._driver = SyncDriver({"": self.transport})

    def run(self, operation: Callable[[Call], Operation[T]], seconds: float = CALL_SECONDS) -> T:
        """Perform an operation of the backend. Raises its errors."""
        return self.measure(operation, seconds)[0]

    def measure(
        self, operation: Callable[[Call], Operation[T]], seconds: float = CALL_SECONDS
    ) -> tuple[T, Report]:
        """Perform an operation, and return its result and its cost."""
        call = Call(read_clocks().monotonic + seconds)
        try:
            return self._driver.run(operation(call)), call.report
        finally:
            self.report.add(call.report)

    def send(self, operation: str, body: bytes, expected: Expected[T]) -> T:
        """Send one request by the store's wire, with its retries."""
        return self.run(lambda call: self._wire.ask(operation, body, expected, call))

    def attempt(self, operation: str, body: bytes, expected: Expected[T]) -> T:
        """Send one request once."""
        return self.run(lambda call: self._wire.attempt(operation, body, expected, call))

    def send_raw(self, request: Request) -> Response:
        """Send a request without the wire's retries, and return the response."""
        return self.transport.send(request, ATTEMPT_SECONDS)

    def put(self, change: Change) -> None:
        """Put the item of a change. Raises the error of a write that failed."""
        self.put_all([change])

    def put_all(self, changes: Sequence[Change]) -> Report:
        """Put the items of changes as a bulk load does, and return the cost."""
        outcomes, report = self.measure(lambda call: self.backend.replace(changes, call))
        raise_first(outcomes)
        return report

    def apply(self, change: Change) -> Report:
        """Apply a change in event time, and return the cost."""
        outcomes, report = self.measure(lambda call: self.backend.change([change], call))
        raise_first(outcomes)
        return report

    def read(
        self, keys: Sequence[ItemKey], shape: Shape | None = None, *, consistent: bool = True
    ) -> tuple[list[RowOrError], Report]:
        """Read items of one sort key as a store does. Without a shape, items are whole."""
        wanted = GroupKeys(keys[0].sk, shape or RawItemShape(self.layout), [key.pk for key in keys])

        def operation(call: Call) -> Operation[list[list[RowOrError]]]:
            call.consistent = consistent
            return self.backend.get([wanted], call)

        (found,), report = self.measure(operation)
        raise_first(found)
        return found, report

    def item(self, key: ItemKey) -> Attributes | None:
        """Read one item, strongly. Return None for a missing item."""
        (row,), _ = self.read([key])
        if not isinstance(row, tuple):
            return None
        attributes: Attributes = row[ATTRIBUTES]
        return attributes

    def query(self, pk: str) -> tuple[list[Attributes], Report]:
        """Read a partition, strongly, and return its items and the cost."""
        return self.measure(lambda call: self.backend.list_partition(pk, " ", call))

    def delete(self, keys: Sequence[ItemKey]) -> Report:
        """Delete items, and return the cost."""
        return self.put_all([Change.of(key, 0, {}, True, 0, None) for key in keys])

    def close(self) -> None:
        """Close the connections."""
        self._driver.close()


class Scratch:
    """The keys of scratch items: all that checks may write.

    Each is kept before it is used, so that every item that was written is found. `token` tells
    one run from another.
    """

    def __init__(self, token: str) -> None:
        self.partition = f"{PARTITION}{token}"
        self.keys: dict[ItemKey, None] = {}
        self._partitions = 0

    def key(self, suffix: str = "", sk: str = "a") -> ItemKey:
        """Return a key in a new partition. The partition key ends with `suffix`."""
        self._partitions += 1
        return self.beside(ItemKey(f"{self.partition}:{self._partitions}{suffix}", sk), sk)

    def beside(self, key: ItemKey, sk: str) -> ItemKey:
        """Return a key in the partition of another one."""
        made = ItemKey(key.pk, sk)
        self.keys[made] = None
        return made

    def partitions(self) -> list[str]:
        """Return every partition key that was given out."""
        return list(dict.fromkeys(key.pk for key in self.keys))


@dataclass
class CheckContext:
    """The means of a check. `client` is the client of the URL's first region."""

    clients: Sequence[Client]
    plane: ControlPlane
    target: DynamoDBTarget
    scratch: Scratch
    requests: int = 50
    """The number of requests per operation whose latency is measured."""
    wcu_per_second: float = 0.0
    """The table's provisioned write capacity; 0 for a table on demand."""
    now: int = field(default_factory=lambda: read_clocks().wall)
    """The observed-at of written values, in UTC microseconds."""

    @property
    def client(self) -> Client:
        """The client of the first region. Most checks use it alone."""
        return self.clients[0]

    @property
    def layout(self) -> TableLayout:
        """The names of the table's key and TTL attributes."""
        return self.target.layout

    @property
    def consumed(self) -> Report:
        """The cost of all calls so far, as the engine reported it."""
        total = Report()
        for client in self.clients:
            total.add(client.report)
        return total

    @property
    def ids(self) -> list[str]:
        """Every feature id of one character that the table can have, shortest first."""
        return [name for name in ALPHABET if name not in self.layout.reserved]

    @property
    def expires_at(self) -> int:
        """The time at which scratch items expire, in UTC seconds."""
        return self.now // 1_000_000 + LIFETIME_SECONDS

    def pairs(self) -> Iterator[tuple[Client, Client]]:
        """Return every ordered pair of regions. Raises `NotApplicable` if there is one region."""
        if len(self.clients) < 2:
            raise NotApplicable("the URL names one region")
        return ((a, b) for a in self.clients for b in self.clients if a is not b)

    def change(
        self,
        key: ItemKey,
        values: Mapping[str, bytes | None],
        *,
        whole: bool = True,
        at: int = 0,
        width: int | None = None,
    ) -> Change:
        """Return a change as stores make them, `at` microseconds after the run began.

        Its item expires within the hour, should this process be killed.
        """
        width = len(values) if width is None else width
        return Change.of(key, self.now + at, values, whole, width, self.expires_at)

    def text(self, key: ItemKey, value: str = "x", *, at: int = 0) -> Change:
        """Return a whole change of one str."""
        return self.change(key, {self.ids[0]: b'{"S":%b}' % msgspec.json.encode(value)}, at=at)

    def filled(self, key: ItemKey, size: int, *, at: int = 0) -> Change:
        """Return a whole change whose item has `size` bytes, by our rules."""
        empty = self.text(key, "", at=at)
        missing = size - self.size_of(empty)
        return self.text(key, "x" * missing, at=at)

    def fresh(self, change: Change) -> dict[str, bytes]:
        """Return the item that a change creates."""
        return parse_item(render_fresh(self.layout, change))

    def size_of(self, change: Change) -> int:
        """Return the size in bytes of the item that a change creates."""
        return item_size(msgspec.json.decode(render_fresh(self.layout, change)))


def raise_first(outcomes: Sequence[object]) -> None:
    """Raise the first error among the outcomes of a call."""
    for outcome in outcomes:
        if isinstance(outcome, OnlineStoreError):
            raise outcome


def accepted(send: Callable[[], object]) -> str:
    """Return "accepted", or how the engine refused a request."""
    try:
        send()
    except ItemTooLarge:
        return "refused as too large"
    except RequestRefused:
        return "refused"
    except ConditionFailed:
        return "condition failed"
    return "accepted"


# --- The parts of a check: its name, the expected text, and a function that returns a tex ---


Verdict: TypeAlias = Literal["ok", "differs", "skipped"]

VERDICTS: list[Verdict] = ["ok", "differs", "skipped"]


class Measured(NamedTuple):
    """A figure, which no text can be compared with."""

    text: str
    as_expected: bool
    figures: dict[str, float] | None = None
    """The same figures for JSON, by name."""


class NotApplicable(Exception):
    """Raised by a check if this URL or account gives it nothing to check. The text says why."""


class Units(NamedTuple):
    """Capacity units that a check consumes, the removal of its items included.

    Refused writes count as well: AWS bills them and does not report them.
    """

    rcu: float = 0.0
    wcu: float = 0.0


NO_UNITS = Units()


@dataclass(frozen=True, slots=True)
class Check:
    """One assumption of the library.

    `run` returns the seen text, which is as expected if it equals `expected`.
    """

    name: str
    expected: str
    run: Callable[[CheckContext], str | Measured]
    units: Units = NO_UNITS


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check. `detail` is the engine's message if a request failed."""

    name: str
    expected: str
    seen: str
    verdict: Verdict
    seconds: float
    rcu: float
    wcu: float
    detail: str = ""
    figures: dict[str, float] | None = None

    def plain(self) -> dict[str, Any]:
        """Return the result as JSON has it."""
        return asdict(self)
