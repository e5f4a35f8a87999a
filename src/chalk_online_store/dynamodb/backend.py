"""The DynamoDB backend: the contract of `backend.Backend` in requests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from chalk_online_store.backend import (
    Call,
    GroupKeys,
    ItemPage,
    KeyPage,
    Outcome,
    Route,
    RowOrError,
    Searched,
    WriteOutcome,
    chunks,
    fan_out,
)
from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    ConditionalWrite,
    key_of,
    render_item,
)
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.nearest import Nearest, VectorQuery
from chalk_online_store.dynamodb.bodies import Bodies
from chalk_online_store.dynamodb.matching import Matcher
from chalk_online_store.dynamodb.ordering import OrderedWrites
from chalk_online_store.dynamodb.reading import ItemReader
from chalk_online_store.dynamodb.responses import SearchResult
from chalk_online_store.dynamodb.wire import SEARCH, Wire
from chalk_online_store.effects import Operation
from chalk_online_store.errors import (
    ConditionFailed,
    ItemTooLarge,
    RequestError,
    VectorIndexUnavailable,
)
from chalk_online_store.retry import RetryPolicy, item_error_or_raise

BATCH_WRITE = 25
"""AWS: BatchWriteItem takes 25 items."""


class DynamoDBBackend:
    """One table, in one region or in several. Keeps no state between calls but its settings.

    `concurrency` is how many requests one call may have under way; `attempt_timeout`, in
    seconds, bounds each of them. `region` is the one that is asked, unless there is a `route`,
    and a `search_route` for searches, which have endpoints of their own.
    """

    def __init__(
        self,
        table: str,
        layout: TableLayout | None = None,
        *,
        retry: RetryPolicy | None = None,
        attempt_timeout: float = 3.0,
        concurrency: int = 16,
        region: str = "",
        route: Route | None = None,
        search_route: Route | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.layout = layout or TableLayout()
        self.scans_in_order = True
        self.identity = " ".join((table, self.layout.pk, self.layout.sk, self.layout.ttl))
        self._region = region
        self._route = route
        self._bodies = Bodies(table, self.layout)
        self._wire = Wire(
            table, retry or RetryPolicy(), attempt_timeout, rng or random.Random(), region, route
        )
        self._searches = Wire(
            table,
            retry or RetryPolicy(),
            attempt_timeout,
            rng or random.Random(),
            region,
            search_route,
            endpoint=SEARCH,
        )
        self._matcher = Matcher(table, self.layout)
        self._reader = ItemReader(self._wire, self._bodies, self._matcher, concurrency)
        self._ordered = OrderedWrites(self._wire, self._bodies, self._matcher)
        self._concurrency = concurrency

    @property
    def home(self) -> str:
        """See `backend.Backend.home`."""
        return self._region if self._route is None else self._route.home

    @property
    def origin(self) -> str:
        """See `backend.Backend.origin`."""
        return self._region if self._route is None else self._route.written

    def get(self, wanted: Sequence[GroupKeys], call: Call) -> Operation[list[list[RowOrError]]]:
        """GetItem, BatchGetItems at once, or Queries: see `dynamodb.reading`."""
        return self._reader.get(wanted, call)

    def change(self, changes: Sequence[Change], call: Call) -> Operation[list[Outcome]]:
        """An UpdateItem per change, all under way at once, under the condition of its time."""
        tasks = [partial(self._change, change) for change in changes]
        return (yield from fan_out(call, tasks, self._concurrency))

    def _change(self, change: Change, call: Call) -> Operation[Outcome]:
        try:
            return (yield from self._ordered.apply(change, call))
        except ItemTooLarge as error:
            return error
        except RequestError as error:
            return item_error_or_raise(error)

    def replace(self, changes: Sequence[Change], call: Call) -> Operation[list[Outcome]]:
        """BatchWriteItems at once; DeleteItem for a single removal."""
        if len(changes) == 1 and changes[0].erases:
            return [(yield from self._delete(changes[0], call))]
        tasks = [partial(self._write_batch, batch) for batch in chunks(changes, BATCH_WRITE)]
        batches = yield from fan_out(call, tasks, self._concurrency)
        return [outcome for batch in batches for outcome in batch]

    def _delete(self, change: Change, call: Call) -> Operation[Outcome]:
        body = self._bodies.delete(change.key)
        try:
            expected = self._matcher.write("DeleteItem", change.key)
            yield from self._wire.ask("DeleteItem", body, expected, call)
        except RequestError as error:
            return item_error_or_raise(error)
        return WriteOutcome.APPLIED

    def _write_batch(self, changes: Sequence[Change], call: Call) -> Operation[list[Outcome]]:
        def step(pending: Sequence[Change]) -> Operation[list[Change]]:
            body = self._bodies.batch_write(pending)
            expected = self._matcher.batch_write([change.key for change in pending])
            answer = yield from self._wire.attempt("BatchWriteItem", body, expected, call)
            if not answer.left:
                return []
            left = set(answer.left)
            return [change for change in pending if change.key in left]

        left, error = yield from self._wire.send_until_processed(step, changes, call)
        failed = {change.key for change in left}
        if error is None or not failed:
            return [WriteOutcome.APPLIED] * len(changes)
        return [error if change.key in failed else WriteOutcome.APPLIED for change in changes]

    def check_search(self, call: Call) -> Operation[None]:
        """A SearchVectors of an index that does not exist: whoever says so answers searches."""
        body, expected = self._bodies.search_of_no_index(), self._matcher.search("", "", 0)
        with suppress(VectorIndexUnavailable):
            yield from self._searches.ask("SearchVectors", body, expected, call)

    def search(self, query: VectorQuery, call: Call) -> Operation[Searched]:
        """A SearchVectors for each vector, all under way at once, on the endpoint for searches."""
        tasks = [partial(self._search, query, vector) for vector in query.vectors.tolist()]
        found = yield from fan_out(call, tasks, self._concurrency)
        nearest = [
            Nearest(
                [key_of(self.layout, each.Item).pk for each in results],
                [each.Score for each in results],
            )
            for results in found
        ]
        items = None
        if query.projected:
            items = {
                key_of(self.layout, each.Item).pk: render_item(
                    {name: bytes(raw) for name, raw in each.Item.items()}
                )
                for results in found
                for each in results
            }
        return Searched(nearest, exact=False, items=items)

    def _search(
        self, query: VectorQuery, vector: Sequence[float], call: Call
    ) -> Operation[list[SearchResult]]:
        body = self._bodies.search(query, vector)
        expected = self._matcher.search(query.prefix, query.sk, query.k)
        answer = yield from self._searches.ask("SearchVectors", body, expected, call)
        call.report.search_bytes += answer.search_bytes
        return answer.SearchResults

    def list_partition(self, pk: str, after: str, call: Call) -> Operation[list[Attributes]]:
        """Strong Queries, page by page."""
        found: list[Attributes] = []
        start = b""
        expected = self._matcher.partition(pk, after)
        while True:
            body = self._bodies.query(pk, after, start)
            answer = yield from self._wire.ask("Query", body, expected, call)
            found += [{name: bytes(raw) for name, raw in item.items()} for item in answer.Items]
            start = bytes(answer.LastEvaluatedKey)
            if not start:
                return found

    def transact(self, swaps: Sequence[ConditionalWrite], call: Call) -> Operation[bool]:
        """One TransactWriteItems, each action on the condition that its swap states.

        A single swap goes by PutItem or DeleteItem.
        """
        matcher, wire = self._matcher, self._wire
        try:
            if len(swaps) == 1:
                operation, body = self._bodies.swap(swaps[0])
                key = swaps[0].key(self.layout)
                yield from wire.ask(operation, body, matcher.write(operation, key), call)
            else:
                body, expected = self._bodies.transact(swaps), matcher.transaction(len(swaps))
                yield from wire.ask("TransactWriteItems", body, expected, call)
        except ConditionFailed:
            return False
        return True

    def scan_keys(
        self, segment: int, segments: int, start: bytes, limit: int, call: Call
    ) -> Operation[KeyPage]:
        """One Scan that projects the partition keys."""
        body = self._bodies.scan(segment, segments, start, limit, keys_only=True)
        answer = yield from self._wire.ask("Scan", body, self._matcher.scan(), call)
        pks = [key_of(self.layout, item).pk for item in answer.Items]
        return KeyPage(pks, bytes(answer.LastEvaluatedKey), answer.units)

    def scan_items(
        self, segment: int, segments: int, start: bytes, limit: int, call: Call
    ) -> Operation[ItemPage]:
        """One Scan."""
        body = self._bodies.scan(segment, segments, start, limit, keys_only=False)
        answer = yield from self._wire.ask("Scan", body, self._matcher.scan(), call)
        items = [{name: bytes(raw) for name, raw in item.items()} for item in answer.Items]
        return ItemPage(items, bytes(answer.LastEvaluatedKey), answer.units)
