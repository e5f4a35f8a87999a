"""The SQLite backend: the contract of `backend.Backend` in the engine's requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from chalk_online_store.backend import (
    Call,
    GroupKeys,
    ItemPage,
    KeyPage,
    Outcome,
    RowOrError,
    Searched,
)
from chalk_online_store.codec.changes import Attributes, Change, ConditionalWrite, parse_item
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.codec.nearest import ExactSearch, VectorQuery, search_too_large
from chalk_online_store.effects import NOW, Instant, Operation, Send
from chalk_online_store.embedded import requests
from chalk_online_store.errors import RequestTimeout

_SEARCHED_AT_ONCE = 1000
"""Items of one request of a search."""


class EmbeddedBackend:
    """One SQLite database. It counts no capacity units: it has none."""

    def __init__(self) -> None:
        self.layout = TableLayout()
        self.scans_in_order = True
        self.home = self.origin = ""
        self.identity = "sqlite"

    def get(self, wanted: Sequence[GroupKeys], call: Call) -> Operation[list[list[RowOrError]]]:
        """One SELECT for each group."""
        found = []
        for want in wanted:
            found.append((yield from self._get(want, call)))
        return found

    def _get(self, want: GroupKeys, call: Call) -> Operation[list[RowOrError]]:
        keys = [ItemKey(pk, want.sk) for pk in want.pks]
        try:
            items: dict[ItemKey, bytes] = yield from self._ask(requests.Get(keys), call)
        except RequestTimeout as error:
            return [error] * len(keys)
        rows = dict(zip(items, want.shape.decode_each(list(items.values())), strict=True))
        return [rows.get(key) for key in keys]

    def change(self, changes: Sequence[Change], call: Call) -> Operation[list[Outcome]]:
        """One transaction for all changes."""
        return (yield from self._write(requests.Merge(changes), call))

    def replace(self, changes: Sequence[Change], call: Call) -> Operation[list[Outcome]]:
        """One transaction for all changes."""
        return (yield from self._write(requests.Replace(changes), call))

    def _write(
        self, request: requests.Merge | requests.Replace, call: Call
    ) -> Operation[list[Outcome]]:
        try:
            outcomes: list[Outcome] = yield from self._ask(request, call)
        except RequestTimeout as error:
            return [error] * len(request.changes)
        return outcomes

    def list_partition(self, pk: str, after: str, call: Call) -> Operation[list[Attributes]]:
        """One SELECT."""
        items: list[bytes] = yield from self._ask(requests.ListPartition(pk, after), call)
        return [parse_item(item) for item in items]

    def transact(self, swaps: Sequence[ConditionalWrite], call: Call) -> Operation[bool]:
        """One transaction."""
        done: bool = yield from self._ask(requests.Transact(swaps), call)
        return done

    def scan_keys(
        self, segment: int, segments: int, start: bytes, limit: int, call: Call
    ) -> Operation[KeyPage]:
        """One SELECT; the first segment has everything."""
        if segment:
            return KeyPage([], b"", 0.0)
        keys: list[ItemKey] = yield from self._ask(requests.ScanKeys(_after(start), limit), call)
        return KeyPage([key.pk for key in keys], _next(keys, limit), 0.0)

    def scan_items(
        self, segment: int, segments: int, start: bytes, limit: int, call: Call
    ) -> Operation[ItemPage]:
        """One SELECT, of the partition keys that are in the segment by their hash."""
        request = requests.ScanItems(_after(start), limit, segment, segments)
        found: dict[ItemKey, bytes] = yield from self._ask(request, call)
        return ItemPage(list(map(parse_item, found.values())), _next(list(found), limit), 0.0)

    def check_search(self, call: Call) -> Operation[None]:
        """Nothing: searches are reads."""
        yield from ()

    def search(self, query: VectorQuery, call: Call) -> Operation[Searched]:
        """An exact search of the whole group, some items at a time."""
        now: Instant = yield NOW
        search = ExactSearch(query, now.wall)
        last = query.prefix[:-1] + chr(ord(query.prefix[-1]) + 1)
        after: str | None = query.prefix
        while after is not None:
            limit = min(_SEARCHED_AT_ONCE, query.max_scanned - search.scanned + 1)
            request = requests.SearchGroup(
                query.sk, after, last, limit, search, query.shape.decode_stored
            )
            after = yield from self._ask(request, call)
            if search.scanned > query.max_scanned:
                raise search_too_large(query, "SQLite")
        return Searched(search.result(), exact=True)

    def _ask(self, request: requests.Request, call: Call) -> Operation[Any]:
        now: Instant = yield NOW
        left = call.deadline - now.monotonic
        if left <= 0:
            raise RequestTimeout("SQLite: no time was left before the call's deadline.")
        call.report.requests += 1
        return (yield Send(request, left))


def _after(start: bytes) -> ItemKey:
    return ItemKey(*msgspec.json.decode(start)) if start else ItemKey("", "")


def _next(keys: Sequence[ItemKey], limit: int) -> bytes:
    return msgspec.json.encode(keys[-1]) if len(keys) == limit else b""
