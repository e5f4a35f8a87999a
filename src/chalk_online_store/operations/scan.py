"""Scanning the entities of a namespace: their values, or their number.

Problem. An engine can only list items: those of all namespaces, a few of them per page, and an
entity has an item for each group. A scan has to return rows as a read does, in bounded memory, and
to continue in another process.

Approach. `TableScan` reads a page of each segment at once. If the requested features are stored in
one group, the page's items are the rows and nothing else is read. Otherwise the page only names
the entities, and their groups are read by key, because a page boundary can separate the items of an
entity, and Valkey stores them in no order. See decision 40.

Invariants.
- A segment's position moves past a page only when the caller takes the page's rows. A page that
  failed is read again, and a token never points past rows that were not returned.
- An entity that is stored during the whole scan is returned at least once. It is returned again if
  Valkey repeats a key, if several groups are requested and Valkey has them in several pages, or if
  a token lies between the items of an entity.
"""

from __future__ import annotations

import base64
import binascii
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from chalk_online_store.backend import Backend, Call, GroupKeys, ItemPage, RowOrError, fan_out
from chalk_online_store.codec.changes import Attributes, features_of, key_of
from chalk_online_store.codec.decoding import DamagedRow
from chalk_online_store.codec.keys import parse_key
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.effects import NOW, Instant, Operation, Sleep
from chalk_online_store.errors import InvalidValue, OnlineStoreError
from chalk_online_store.operations.copying import is_live
from chalk_online_store.operations.read import ReadPlan, count_found
from chalk_online_store.operations.rows import Rows
from chalk_online_store.report import Report
from chalk_online_store.tiers.filter.bloom import hash_keys

if TYPE_CHECKING:
    from chalk_online_store.codec.shapes import Shape

MAX_PAGE_ITEMS = 10_000
_FIRST_PACED_PAGE = 100


class _Token(msgspec.Struct, frozen=True):
    """Where each segment continues; None for a segment that has ended."""

    table: str
    namespace: str
    starts: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class CountReport:
    """The result of `OnlineStore.count`.

    `entities` have at least one stored value, `items_scanned` are the items of all namespaces that
    the scan read, and `rcu` is what it consumed (0 if the engine has no capacity units).
    """

    entities: int
    items_scanned: int
    rcu: float


@dataclass(frozen=True, slots=True)
class DeletedWhere:
    """The result of `OnlineStore.delete_where`.

    `scanned` rows were given to the predicate, which held for `matched`. Their entities were
    deleted unless `dry_run`. In `report`, `superseded` counts items that were not deleted because
    they were written after the scan had begun.
    """

    scanned: int
    matched: int
    dry_run: bool
    report: Report


class SegmentedScan:
    """Pages of whole items, from all segments at once, within a rate.

    `timeout`, in seconds, bounds each round of pages. The position of a segment is moved by the
    caller, with `advance`.
    """

    def __init__(
        self,
        backend: Backend,
        namespace: str,
        *,
        segments: int,
        page_items: int,
        rcu_per_second: float | None,
        timeout: float,
        token: str | None = None,
    ) -> None:
        self._backend = backend
        self._namespace = namespace
        self._timeout = timeout
        self._rate = rcu_per_second
        self._page_items = page_items
        self._limit = page_items if rcu_per_second is None else min(page_items, _FIRST_PACED_PAGE)
        self._not_before = 0.0
        self._starts: list[bytes | None] = [b""] * segments
        if token is not None:
            self._starts = self._resumed(token)
        self.report = Report()
        self.items = 0

    def _resumed(self, text: str) -> list[bytes | None]:
        try:
            token = msgspec.json.decode(base64.urlsafe_b64decode(text), type=_Token)
            starts = [None if s is None else base64.b64decode(s) for s in token.starts]
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            raise InvalidValue("token is not the token of a scan. Pass scan.token.") from None
        if (token.table, token.namespace) != (self._backend.identity, self._namespace):
            raise InvalidValue(
                "token is that of a scan of another table or namespace. Start without a token."
            )
        return starts

    @property
    def token(self) -> str:
        """The position of every segment, as text."""
        starts = (None if s is None else base64.b64encode(s).decode() for s in self._starts)
        token = _Token(self._backend.identity, self._namespace, tuple(starts))
        return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode()

    @property
    def is_over(self) -> bool:
        """True if every segment has ended."""
        return not any(start is not None for start in self._starts)

    def advance(self, segment: int, page: ItemPage) -> None:
        """Move a segment past a page."""
        self._starts[segment] = page.next or None

    def next_pages(self) -> Operation[list[tuple[int, ItemPage]]]:
        """Read the next page of every segment that has not ended."""
        now: Instant = yield NOW
        if now.monotonic < self._not_before:
            yield Sleep(self._not_before - now.monotonic)
            now = yield NOW
        # Segments of two regions need not have the same boundaries: stay in one.
        call = Call(now.monotonic + self._timeout, region=self._backend.home)
        tasks = [
            partial(self._read_page, number, start)
            for number, start in enumerate(self._starts)
            if start is not None
        ]
        pages = yield from fan_out(call, tasks, len(tasks))
        self.items += sum(len(page.items) for _, page in pages)
        units = sum(page.units for _, page in pages)
        if self._rate is not None:
            # The units are known only after the request: the next round pays for this one.
            self._not_before = now.monotonic + units / self._rate
            fitting = round(self._limit * self._rate / max(units, 0.5))
            self._limit = max(1, min(self._page_items, fitting))
        self.report.add(call.report)
        return pages

    def charge(self, units: float) -> None:
        """Take units that the caller spent on a page's entities out of the rate."""
        if self._rate is not None:
            self._not_before += units / self._rate

    def new_call(self) -> Operation[Call]:
        """Return a call for reads that belong to a page."""
        now: Instant = yield NOW
        return Call(now.monotonic + self._timeout)

    def _read_page(self, segment: int, start: bytes, call: Call) -> Operation[tuple[int, ItemPage]]:
        page = yield from self._backend.scan_items(
            segment, len(self._starts), start, self._limit, call
        )
        return segment, page


class TableScan:
    """The rows of a namespace, page by page; what both `Scan` and `AsyncScan` are built on."""

    def __init__(self, backend: Backend, plan: ReadPlan, pages: SegmentedScan) -> None:
        self._backend = backend
        self._plan = plan
        self._pages = pages
        self._queue: deque[tuple[int, ItemPage]] = deque()
        self._prefix = plan.codec.prefix
        self._last: dict[int, str] = {}  # Of each segment, the entity that its last page ended in.

    @property
    def report(self) -> Report:
        """What the scan has cost so far."""
        return self._pages.report

    def next_rows(self) -> Operation[Rows[Any] | None]:
        """Return the rows of the next page that has any; None at the end."""
        if self._prefix is None or not self._plan.groups:
            return None
        while True:
            if not self._queue:
                if self._pages.is_over:
                    return None
                pages = yield from self._pages.next_pages()
                self._queue.extend(pages)
            segment, page = self._queue[0]
            pks, rows = yield from self._rows(page, self._last.get(segment, ""))
            # After the last await: an interrupted call reads the same page again.
            self._queue.popleft()
            self._pages.advance(segment, page)
            self._last[segment] = pks[-1] if pks else self._last.get(segment, "")
            if rows:
                return rows

    def _rows(self, page: ItemPage, last: str) -> Operation[tuple[list[str], Rows[Any]]]:
        """Return a page's partition keys and rows, without the entity that was returned last."""
        items = [item for item in self._own_items(page.items) if item[0] != last]
        pks = list(dict.fromkeys(pk for pk, _, _ in items))
        call = yield from self._pages.new_call()
        found: list[list[RowOrError]]
        if len(self._plan.groups) == 1:
            shape = self._plan.groups[0].shape
            by_pk = dict(zip(pks, shape.decode_each([raw for _, _, raw in items]), strict=True))
            found = [list(by_pk.values())]
        elif pks:
            wanted = [GroupKeys(group.sk, group.shape, pks) for group in self._plan.groups]
            found = yield from self._backend.get(wanted, call)
            self._pages.charge(call.report.rcu)
        else:
            found = [[] for _ in self._plan.groups]
        shapes = [group.shape for group in self._plan.groups]
        kept = [i for i in range(len(pks)) if _has_any(shapes, [rows[i] for rows in found])]
        found = [[rows[i] for i in kept] for rows in found]
        for group in found:
            count_found(group, call)
        self._pages.report.add(call.report)
        namespace, prefix = self._plan.codec.namespace, self._prefix or ""
        keys = [parse_key(pks[i].removeprefix(prefix), namespace) for i in kept]
        now: Instant = yield NOW
        return pks, Rows(keys, self._plan.sources, None, found, now.wall, call.report)

    def _own_items(self, items: Sequence[Attributes]) -> list[tuple[str, str, bytes]]:
        """Return the key and JSON of each item of a requested group, without repetitions."""
        sks = {group.sk for group in self._plan.groups}
        own: dict[tuple[str, str], bytes] = {}
        for item in items:
            pk, sk = key_of(self._backend.layout, item)
            if sk in sks and pk.startswith(self._prefix or ""):
                raw = {name: msgspec.Raw(value) for name, value in item.items()}
                own[pk, sk] = msgspec.json.encode(raw)
        return [(pk, sk, raw) for (pk, sk), raw in own.items()]


def _has_any(shapes: Sequence[Shape], rows: Sequence[RowOrError]) -> bool:
    """Return True if an entity has a requested feature, or one that could not be read."""
    for shape, row in zip(shapes, rows, strict=True):
        if row is None:
            continue
        if isinstance(row, OnlineStoreError | DamagedRow):
            return True
        if any(shape.observed_at(row, place) is not None for place in range(len(shape.columns))):
            return True
    return False


def count_entities(
    backend: Backend, codec: NamespaceCodec, pages: SegmentedScan
) -> Operation[CountReport]:
    """Count the entities of a namespace that have a stored value, each once.

    Takes 8 bytes of memory per item: the items of an entity can be in different pages. Two
    entities whose 64-bit hashes are equal count as one.
    """
    hashes = array("Q")
    while codec.prefix is not None and not pages.is_over:
        now: Instant = yield NOW
        for segment, page in (yield from pages.next_pages()):
            hashes.extend(hash_keys(list(_stored(backend, codec.prefix, page, now))).tolist())
            pages.advance(segment, page)
    entities = len(np.unique(np.frombuffer(hashes, np.uint64)))
    return CountReport(entities, pages.items, pages.report.rcu)


def _stored(backend: Backend, prefix: str, page: ItemPage, now: Instant) -> Iterator[str]:
    """Partition keys of a namespace's items that hold a value and have not expired."""
    layout = backend.layout
    for item in page.items:
        pk = key_of(layout, item).pk
        is_ours = pk.startswith(prefix) and is_live(layout, item, now)
        if is_ours and any(name in item for name in features_of(item, layout)):
            yield pk
