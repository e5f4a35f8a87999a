"""Responses compared with their requests.

Problem. HTTP/1.1 pairs requests and responses by their order on a connection. If a proxy between
this process and the engine swaps two responses, or sends one late or twice, a read returns the
values of another entity, or reports an existing one as missing.

Approach. Each request makes an `Expected`, which decodes the response and compares it with the
request. It compares:

- the keys of the items that were returned, left unprocessed, or found by a refused condition:
  each must have been requested, none may come twice, and keys of a Query must be in its range;
- the table, if the response names it: always for batches, otherwise in `ConsumedCapacity`;
- the form: members that only other operations have, the number of cancelled actions, errors that
  the operation cannot have. Writes ask for `INDEXES`, reads for `TOTAL`, so that even an empty
  `{"ConsumedCapacity": …}` shows whether it acknowledges a write or reports a missing item.

A key that a BatchGetItem neither returned nor left unprocessed is missing only if the response
names the table. GetItem reports a missing item by no member at all, so `{}` is accepted only from
an engine that never reports capacity: this is learned from responses that their keys have proven.

Limits. GetItem, an empty page, or an acknowledged write carry no key. If responses to two such
requests of one kind, for one table, are swapped, nothing in them shows it. A response that comes
twice is found by its request id (`dynamodb.http.exchange`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from chalk_online_store.codec.changes import key_of, parse_item
from chalk_online_store.codec.compiled import Frame
from chalk_online_store.codec.decoding import SK, Row
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.dynamodb import responses as answers
from chalk_online_store.dynamodb.failures import CheckFailure, Failure
from chalk_online_store.dynamodb.responses import Decoder, Mismatch
from chalk_online_store.errors import DamagedItem

T = TypeVar("T")
A = TypeVar("A")

Key = tuple[str, str]


class Expected(Generic[T]):
    """The response that one request expects. `accept` raises `Mismatch` for another one."""

    __slots__ = ("_accept", "_decoder", "check_failure")

    def __init__(
        self, decoder: Decoder[A], accept: Callable[[A], T], check_failure: CheckFailure
    ) -> None:
        self._decoder: Decoder[Any] = decoder
        self._accept = accept
        self.check_failure = check_failure
        """Raises `Mismatch` for an error that another request has."""

    def decode(self, body: bytes) -> T:
        """Decode and accept a body. Raises as `accept` and the decoder do."""
        return self._accept(self._decoder.decode(body))


class BatchRead(NamedTuple):
    """The rows of a BatchGetItem, and the partition keys left unprocessed.

    Rows are by partition key, or are a `Frame` that has a row for each requested key.
    """

    found: dict[str, Row | DamagedItem] | Frame
    left: list[str]
    units: float
    size: int


class ItemsRead(NamedTuple):
    """The rows of a BatchGetItem of several groups, and the keys left unprocessed."""

    found: dict[ItemKey, Row | DamagedItem]
    left: list[ItemKey]
    units: float


class BatchWritten(NamedTuple):
    """The keys that a BatchWriteItem left unprocessed."""

    left: list[ItemKey]
    units: float


class Matcher:
    """Makes what requests to one table expect.

    Keeps the forms of `ConsumedCapacity` that the engine has sent. An engine that has sent a form
    once sends it with each response.
    """

    def __init__(self, table: str, layout: TableLayout) -> None:
        self._table = table
        self._layout = layout
        self._detailed: set[str] = set()
        """Writes whose responses have reported the table apart from its indexes."""
        self._reads_report = False
        self._reads_are_plain = False

    # --- reads -------------------------------------------------------------------------------

    def item(
        self, decoder: Decoder[answers.ReadAnswer], pk: str, sk: str
    ) -> Expected[answers.ReadAnswer]:
        """GetItem's response, with an item of this key or none."""
        return Expected(decoder, partial(self._accept_item, pk, sk), check_read_failure)

    def _accept_item(self, pk: str, sk: str, found: answers.ReadAnswer) -> answers.ReadAnswer:
        rows = found.rows
        if rows:
            if not _is_of_key(rows, pk, sk):
                raise Mismatch(_OTHER_KEY)
            if found.answer.Item is None:
                raise Mismatch(_OTHER_OPERATION)
            if not self._reads_report:
                self._learn(found.answer)
        elif found.damaged:
            if found.damaged[0][0] != (pk, sk):
                raise Mismatch(_OTHER_KEY)
        else:
            self._check_empty(found.answer)
        return found

    def raw_item(self, key: ItemKey) -> Expected[answers.GetItemResponse[answers.RawItem]]:
        """GetItem's response, undecoded."""

        def accept(
            answer: answers.GetItemResponse[answers.RawItem],
        ) -> answers.GetItemResponse[answers.RawItem]:
            if answer.Item:
                self._check_key(answer.Item, key)
            else:
                self._check_empty(answer)
            return answer

        return Expected(answers.raw_item, accept, check_read_failure)

    def batch(
        self, decoder: Decoder[answers.ReadAnswer], sk: str, pks: Sequence[str]
    ) -> Expected[BatchRead]:
        """BatchGetItem's response, with items of some of these keys; the other ones left or not."""
        return Expected(decoder, partial(self._accept_batch, sk, pks), check_read_failure)

    def _accept_batch(self, sk: str, pks: Sequence[str], answer: answers.ReadAnswer) -> BatchRead:
        parts, rows = answer.answer, answer.rows
        self._check_tables(parts.Responses, parts.UnprocessedKeys)
        if isinstance(rows, Frame) and not parts.UnprocessedKeys:
            if not rows.place(pks, sk):
                raise Mismatch(_OTHER_KEY)
            if self._table not in parts.Responses and (rows.present or pks):
                raise Mismatch(_NO_TABLE)
            return BatchRead(rows, [], answer.units, answer.size)
        found: dict[str, Row | DamagedItem] = dict(zip(map(_PK, rows), rows, strict=True))
        count = len(rows)
        matching = list(map(_SK, rows)).count(sk)
        left: list[str] = []
        requested = sum(map(found.__contains__, pks))
        if answer.damaged or parts.UnprocessedKeys:
            unread = self._left(parts)
            left = [key.pk for key in unread]
            keys = [key for key, _ in answer.damaged] + unread
            count += len(keys)
            matching += sum(key.sk == sk for key in keys)
            found.update((key.pk, error) for key, error in answer.damaged)
            requested = len({*found, *left}.intersection(pks))
        if not requested == matching == count:
            raise Mismatch(_OTHER_KEY)
        if self._table not in parts.Responses and (rows or count < len(pks)):
            raise Mismatch(_NO_TABLE)
        return BatchRead(found, left, answer.units, answer.size)

    def items(
        self, decoder: Decoder[answers.ReadAnswer], keys: Collection[ItemKey]
    ) -> Expected[ItemsRead]:
        """BatchGetItem's response, with items of some of these keys; the other ones left or not."""

        def accept(answer: answers.ReadAnswer) -> ItemsRead:
            parts = answer.answer
            self._check_tables(parts.Responses, parts.UnprocessedKeys)
            pairs: list[tuple[ItemKey, Row | DamagedItem]] = [
                (ItemKey(row[0], row[SK]), row) for row in answer.rows
            ]
            found = dict([*pairs, *answer.damaged])
            left = self._left(parts)
            count = len(pairs) + len(answer.damaged) + len(left)
            if len({*found, *left}.intersection(keys)) != count:
                raise Mismatch(_OTHER_KEY)
            if self._table not in parts.Responses and (found or count < len(keys)):
                raise Mismatch(_NO_TABLE)
            return ItemsRead(found, left, answer.units)

        return Expected(decoder, accept, check_read_failure)

    def _left(self, answer: answers.BatchGetItemResponse[msgspec.Raw]) -> list[ItemKey]:
        left = answer.UnprocessedKeys.values()
        return [self._key(key) for some in left for key in some.Keys]

    def page(
        self, decoder: Decoder[answers.ReadAnswer], pk: str, first: str, last: str
    ) -> Expected[answers.ReadAnswer]:
        """Query's response, with items of a partition from the first to the last sort key."""

        def accept(found: answers.ReadAnswer) -> answers.ReadAnswer:
            keys: list[Key] = [(row[0], row[1]) for row in found.rows]
            self._check_page(found.answer, keys + [key for key, _ in found.damaged])
            ends = self._ends(found.answer)
            if any(key[0] != pk or not first <= key[1] <= last for key in keys + ends):
                raise Mismatch(_OTHER_KEY)
            return found

        return Expected(decoder, accept, check_read_failure)

    def partition(self, pk: str, after: str) -> Expected[answers.QueryResponse[answers.RawItem]]:
        """Query's response, with items of a partition after a sort key."""

        def accept(
            answer: answers.QueryResponse[answers.RawItem],
        ) -> answers.QueryResponse[answers.RawItem]:
            keys = [self._key(item) for item in answer.Items]
            self._check_page(answer, keys)
            if any(key.pk != pk or key.sk <= after for key in keys + self._ends(answer)):
                raise Mismatch(_OTHER_KEY)
            return answer

        return Expected(answers.queried, accept, check_read_failure)

    def scan(self) -> Expected[answers.QueryResponse[answers.RawItem]]:
        """Scan's response, with any items of the table."""

        def accept(
            answer: answers.QueryResponse[answers.RawItem],
        ) -> answers.QueryResponse[answers.RawItem]:
            self._check_page(answer, [self._key(item) for item in answer.Items])
            self._ends(answer)
            return answer

        return Expected(answers.queried, accept, check_read_failure)

    def search(self, prefix: str, sk: str, most: int) -> Expected[answers.Found]:
        """SearchVectors' response, with at most so many items of a namespace and a group."""

        def accept(answer: answers.Found) -> answers.Found:
            keys = [self._key(result.Item) for result in answer.SearchResults]
            if any(key.sk != sk or not key.pk.startswith(prefix) for key in keys):
                raise Mismatch(_OTHER_KEY)
            if len(set(keys)) != len(keys) or len(keys) > most:
                raise Mismatch("its items are not the result of one search")
            if answer.is_foreign():
                raise Mismatch(_OTHER_OPERATION)
            return answer

        return Expected(answers.found, accept, check_read_failure)

    def _ends(self, answer: answers.QueryResponse[T]) -> list[ItemKey]:
        """The key after which the next page begins; empty for the last page."""
        last = bytes(answer.LastEvaluatedKey)
        return [self._key(_parsed(last))] if last else []

    def _check_page(self, answer: answers.QueryResponse[T], keys: Collection[Key]) -> None:
        if len(set(keys)) != len(keys) or answer.Count not in (None, len(keys)):
            raise Mismatch("its items are not a page")
        if keys:
            self._check_table(answer.ConsumedCapacity)
            self._learn(answer)
        else:
            self._check_empty(answer)

    def _learn(self, answer: answers.OneTable) -> None:
        """Learn how the engine reports a read's capacity, from a response that is proven."""
        if answer.ConsumedCapacity is not None:
            self._reads_report = True
            self._reads_are_plain = not answer.ConsumedCapacity.has_detail

    def _check_empty(self, answer: answers.OneTable) -> None:
        """Check a read's response without items by its other members."""
        capacity = answer.ConsumedCapacity
        if capacity is None:
            if self._reads_report:
                raise Mismatch("it does not report the capacity")
        elif capacity.has_detail and self._reads_are_plain:
            raise Mismatch("it acknowledges a write")
        self._check_table(capacity)
        if answer.is_foreign():
            raise Mismatch(_OTHER_OPERATION)

    # --- writes ------------------------------------------------------------------------------

    def write(self, operation: str, key: ItemKey) -> Expected[answers.WriteResponse]:
        """The response to PutItem, UpdateItem or DeleteItem."""
        return Expected(
            answers.written,
            partial(self._accept_write, operation),
            partial(self._check_refusal, key),
        )

    def _accept_write(self, operation: str, answer: answers.WriteResponse) -> answers.WriteResponse:
        capacity = answer.ConsumedCapacity
        if capacity is not None and capacity.has_detail:
            self._detailed.add(operation)
        elif operation in self._detailed:
            raise Mismatch("it acknowledges no write")
        self._check_table(capacity)
        if answer.is_foreign():
            raise Mismatch(_OTHER_OPERATION)
        return answer

    def _check_refusal(self, key: ItemKey, code: str, failure: Failure) -> None:
        if code == _CANCELED:
            raise Mismatch(_OTHER_OPERATION)
        item = bytes(failure.Item)
        if item:
            self._check_key(_parsed(item), key)

    def batch_write(self, keys: Collection[ItemKey]) -> Expected[BatchWritten]:
        """BatchWriteItem's response, which may leave some of these keys."""

        def accept(answer: answers.BatchWritten) -> BatchWritten:
            self._check_tables(answer.UnprocessedItems)
            requests = answer.UnprocessedItems.values()
            left = [self._key(request.key) for some in requests for request in some]
            if len(set(left)) != len(left) or not set(left).issubset(keys):
                raise Mismatch(_OTHER_KEY)
            return BatchWritten(left, answer.units)

        return Expected(answers.batch_written, accept, check_read_failure)

    def transaction(self, actions: int) -> Expected[answers.Transacted]:
        """TransactWriteItems' response."""

        def accept(answer: answers.Transacted) -> answers.Transacted:
            if answer.is_foreign():
                raise Mismatch(_OTHER_OPERATION)
            for capacity in answer.ConsumedCapacity:
                self._check_table(capacity)
            return answer

        def check_failure(code: str, failure: Failure) -> None:
            if code == _REFUSED:
                raise Mismatch(_OTHER_OPERATION)
            reasons = failure.CancellationReasons
            if reasons and len(reasons) != actions:
                raise Mismatch("it cancels another number of actions")

        return Expected(answers.transacted, accept, check_failure)

    # --- what all share ----------------------------------------------------------------------

    def _check_tables(self, *parts: Mapping[str, object]) -> None:
        for part in parts:
            if len(part) > 1 or (part and self._table not in part):
                raise Mismatch(_OTHER_TABLE)

    def _check_table(self, capacity: answers.Capacity | None) -> None:
        if capacity is not None and capacity.TableName not in (None, self._table):
            raise Mismatch(_OTHER_TABLE)

    def _check_key(self, item: Mapping[str, bytes | msgspec.Raw], key: ItemKey) -> None:
        if self._key(item) != key:
            raise Mismatch(_OTHER_KEY)

    def _key(self, item: Mapping[str, bytes | msgspec.Raw]) -> ItemKey:
        try:
            return key_of(self._layout, item)
        except DamagedItem as error:
            raise Mismatch("an item has no readable key") from error


def check_read_failure(code: str, _: Failure) -> None:
    """Raise `Mismatch` for an error that only a conditional write has."""
    if code in (_REFUSED, _CANCELED):
        raise Mismatch(_OTHER_OPERATION)


def _is_of_key(rows: Sequence[Row], pk: str, sk: str) -> bool:
    """Return True if there is one row, of this key."""
    if isinstance(rows, Frame):
        return rows.place((pk,), sk)
    row = rows[0]
    return bool(row[0] == pk and row[1] == sk and len(rows) == 1)


def _parsed(item: bytes) -> dict[str, bytes]:
    try:
        return parse_item(item)
    except DamagedItem as error:
        raise Mismatch("an item is not one") from error


_PK, _SK = itemgetter(0), itemgetter(SK)
_REFUSED = "ConditionalCheckFailedException"
_CANCELED = "TransactionCanceledException"

_OTHER_KEY = "a key was not requested"
_NO_TABLE = "it does not name the table"
_OTHER_TABLE = "it is of another table"
_OTHER_OPERATION = "it is of another operation"
