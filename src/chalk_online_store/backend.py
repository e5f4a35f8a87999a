"""The contract that every engine fulfils.

A backend knows items, not features: it reads them by key into a shape's rows, and applies
changes to them. Its methods are operations (see `effects`), so each is written once for sync,
async and simulated drivers. `tests/contract/` holds every backend to this page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from chalk_online_store.codec.changes import Attributes, Change, ConditionalWrite
from chalk_online_store.codec.decoding import Row
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.nearest import Nearest, VectorQuery
from chalk_online_store.codec.shapes import Shape
from chalk_online_store.effects import All, Instant, Operation
from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.report import Report

RowOrError: TypeAlias = Row | OnlineStoreError | None
"""A row, None where there is no item, or the error that kept it."""


T = TypeVar("T")


class GroupKeys(NamedTuple):
    """Items of one group: those with this sort key of some partitions, none of them twice."""

    sk: str
    shape: Shape
    pks: Sequence[str]


class KeyPage(NamedTuple):
    """Some of the partition keys of a table, one for each item; `next` begins the next page.

    `next` is empty where there are no more. `units` are the RCU that the page took.
    """

    pks: list[str]
    next: bytes
    units: float


class ItemPage(NamedTuple):
    """Some of the items of a table, as they lie there; `next` and `units` as a `KeyPage`'s."""

    items: Sequence[Attributes]
    next: bytes
    units: float


class Searched(NamedTuple):
    """What a vector query found: for each of its vectors, and whether the search was exact.

    `items` has the projected items, in DynamoDB's JSON, of an index that copies attributes.
    """

    nearest: list[Nearest]
    exact: bool
    items: dict[str, bytes] | None = None


class WriteOutcome(Enum):
    """What became of a change."""

    APPLIED = "wholly"
    """Nothing newer was there: the item now says what the change says."""
    PARTIALLY_APPLIED = "partly"
    """Some of it, or all of it beside newer values."""
    SUPERSEDED = "superseded"
    """Nothing: newer values were there already."""
    LEFT_NEWER = "left newer"
    """A delete took effect, but values that are newer than it stay."""


Outcome: TypeAlias = WriteOutcome | OnlineStoreError
"""What became of a change, or why it is not in the table."""


@dataclass(slots=True)
class Call:
    """What accompanies one call through every layer.

    `deadline` is a reading of the monotonic clock, in seconds. Past it nothing is sent. `as_of`
    is a reading that no waiting has followed yet; the first request takes it away. `region` is
    the only one that may be asked; "" leaves it to the route. `replay` says that its changes may
    have been made before: what an item says already is not written again. In a Global Table that
    would pass for a newer version of the whole item. `retries` says whether a request that failed,
    or was throttled, is tried again before the deadline; else whoever asked does that.
    `shares_requests` says that items of several groups may come in one BatchGetItem.
    """

    deadline: float
    consistent: bool = False
    report: Report = field(default_factory=Report)
    as_of: Instant | None = None
    region: str = ""
    replay: bool = False
    retries: bool = True
    shares_requests: bool = False

    def within(self, region: str) -> Call:
        """The same call, with the same report, for one region."""
        return self._with(self.report, region)

    def part(self) -> Call:
        """The same call, with a report of its own."""
        return self._with(Report(), self.region)

    def _with(self, report: Report, region: str) -> Call:
        return Call(
            self.deadline,
            self.consistent,
            report,
            None,
            region,
            self.replay,
            self.retries,
            self.shares_requests,
        )


class RequestInfo(NamedTuple):
    """What a route needs to know of a request: the API's name for it, and its size.

    Requests of one name and about the same size, whatever that counts, take about the same time.
    A `strong` one may be answered by the region that is written to alone, as one that writes.
    """

    operation: str
    size: int
    writes: bool
    strong: bool = False


Attempt: TypeAlias = Callable[[str, float], Operation[T]]
"""Asks one region, until a reading of the monotonic clock; raises `RequestError`."""


class Route(Protocol):
    """What decides which region a request goes to, and whether to several of them."""

    home: str
    """The region that the registry is written in."""

    @property
    def written(self) -> str:
        """The region that writes go to at present."""
        ...

    def attempt(
        self, attempt: Attempt[T], asked: RequestInfo, now: Instant, call: Call
    ) -> Operation[T]:
        """Ask once, in one region or, where one fails, the others; raises `RequestError`."""
        ...


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items` in order, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def fan_out(
    call: Call, tasks: Sequence[Callable[[Call], Operation[T]]], limit: int
) -> Operation[list[T]]:
    """Run tasks at once, at most `limit` at a time, each with its own report.

    Tasks may run in threads; their reports are added up when all have ended.
    """
    if len(tasks) == 1:
        return [(yield from tasks[0](call))]
    parts = [call.part() for _ in tasks]
    try:
        operations = [task(part) for task, part in zip(tasks, parts, strict=True)]
        results: list[T] = yield All(operations, limit)
        return results
    finally:
        for part in parts:
            call.report.add(part.report)


class Backend(Protocol):
    """One table of one engine."""

    layout: TableLayout

    @property
    def scans_in_order(self) -> bool:
        """True if `scan_items` gives the items of a partition key together, and each item once."""
        ...

    @property
    def identity(self) -> str:
        """Which table this is: for what is kept elsewhere and means something only there."""
        ...

    @property
    def home(self) -> str:
        """The region that the registry is written in; "" for an engine that has none."""
        ...

    @property
    def origin(self) -> str:
        """The region that writes go to at present; "" for an engine that has none."""
        ...

    def get(self, wanted: Sequence[GroupKeys], call: Call) -> Operation[list[list[RowOrError]]]:
        """Read items; the answers have the order of what is wanted, and of its `pks`.

        A key that could not be read before the deadline is answered by its error: never by
        None, which says that there is no such item. Errors that no retry mends are raised.
        """
        ...

    def change(self, changes: Sequence[Change], call: Call) -> Operation[list[Outcome]]:
        """Apply changes, no key twice, as `codec.changes.merge` says; atomic for each item."""
        ...

    def replace(self, changes: Sequence[Change], call: Call) -> Operation[list[Outcome]]:
        """Put what each change leaves where nothing was, no key twice, whatever is there.

        An erasing change deletes the item and leaves no tombstone.
        """
        ...

    def list_partition(self, pk: str, after: str, call: Call) -> Operation[list[Attributes]]:
        """Every item of a partition whose sort key is greater than `after`, strongly read."""
        ...

    def transact(self, swaps: Sequence[ConditionalWrite], call: Call) -> Operation[bool]:
        """Perform all swaps, of which there are at most 100, no key twice, or none.

        False, and nothing is done, if an item is not as its swap says. A single swap takes half
        the units of one among others.
        """
        ...

    def scan_keys(
        self, segment: int, segments: int, start: bytes, limit: int, call: Call
    ) -> Operation[KeyPage]:
        """A page of at most `limit` items, eventually consistent, of one of so many segments.

        `start` is the `next` of the page before, or empty.
        """
        ...

    def scan_items(
        self, segment: int, segments: int, start: bytes, limit: int, call: Call
    ) -> Operation[ItemPage]:
        """As `scan_keys`, of whole items; those of reserved partitions may be among them.

        An item may come twice, unless the engine `scans_in_order`. All items of a partition key
        are in one segment.
        """
        ...

    def check_search(self, call: Call) -> Operation[None]:
        """Ask the endpoint for searches of a region whether it answers; raises `RequestError`.

        Does nothing for an engine that has no such endpoint.
        """
        ...

    def search(self, query: VectorQuery, call: Call) -> Operation[Searched]:
        """Find the entities whose vectors are nearest; raises `RequestError`.

        An exact search leaves out what must not be served. An index may return it all the same.
        """
        ...
