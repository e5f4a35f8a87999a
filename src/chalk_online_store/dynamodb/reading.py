"""Reading items: GetItem for one, BatchGetItems at once for many, Query where it costs less."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from typing import Any, cast

from chalk_online_store.backend import Call, GroupKeys, RowOrError, chunks, fan_out
from chalk_online_store.codec.changes import render_item
from chalk_online_store.codec.compiled import Frame
from chalk_online_store.codec.decoding import FIRST, SK, TIMES, Row
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.codec.raw_items import ATTRIBUTES, RawItemShape
from chalk_online_store.codec.shapes import MOST_PROJECTED, Shape
from chalk_online_store.dynamodb import responses as answers
from chalk_online_store.dynamodb.bodies import Bodies, ReadBodies
from chalk_online_store.dynamodb.matching import Matcher
from chalk_online_store.dynamodb.read_planner import ReadCosts
from chalk_online_store.dynamodb.wire import Wire
from chalk_online_store.effects import Operation
from chalk_online_store.errors import RequestError
from chalk_online_store.retry import item_error_or_raise

BATCH_GET = 100
"""AWS: BatchGetItem takes 100 keys."""

_MOST_KEPT = 1024


class ItemReader:
    """Reads items of one table. Keeps what it prepared for each shape, and what reads cost."""

    def __init__(self, wire: Wire, bodies: Bodies, matcher: Matcher, concurrency: int) -> None:
        self._wire = wire
        self._bodies = bodies
        self._matcher = matcher
        self._concurrency = concurrency
        self._costs = ReadCosts()
        self._prepared: dict[tuple[str | Shape, ...], _Prepared] = {}

    def get(self, wanted: Sequence[GroupKeys], call: Call) -> Operation[list[list[RowOrError]]]:
        """See `backend.Backend.get`."""
        if call.shares_requests and len(wanted) > 1:
            return (yield from self._get_shared(wanted, call))
        if len(wanted) > 1 and self._costs.favour_query(wanted):
            return (yield from self._query_all(wanted, call))
        if len(wanted) == 1 and len(wanted[0].pks) <= BATCH_GET:
            prepared = self._prepare(wanted)
            rows = yield from self._get_batch(prepared, wanted[0].pks, False, call)
            # A frame can stand for the list: nobody changes the rows of a read.
            return [cast("list[RowOrError]", rows)]
        learns = len(wanted) > 1  # What items cost matters only where there is a choice.
        tasks = [
            partial(self._get_batch, self._prepare((want,)), pks, learns)
            for want in wanted
            for pks in chunks(want.pks, BATCH_GET)
        ]
        batches = yield from fan_out(call, tasks, self._concurrency)
        found = (item for batch in batches for item in batch)
        return [list(islice(found, len(want.pks))) for want in wanted]

    def _prepare(self, wanted: Sequence[GroupKeys]) -> _Prepared:
        known = tuple([part for want in wanted for part in (want.sk, want.shape)])
        prepared = self._prepared.get(known)
        if prepared is None:
            if len(self._prepared) >= _MOST_KEPT:
                self._prepared.clear()
            prepared = self._prepared[known] = _Prepared(self._bodies, wanted)
        return prepared

    # --- item by item ----------------------------------------------------------------------

    def _get_batch(
        self, prepared: _Prepared, pks: Sequence[str], learns: bool, call: Call
    ) -> Operation[Sequence[RowOrError]]:
        if len(pks) == 1:
            return (yield from self._get_one(prepared, pks[0], learns, call))
        found: dict[str, RowOrError] = {}
        whole: list[Frame] = []

        def step(pending: Sequence[str]) -> Operation[list[str]]:
            body = prepared.reads.batch_get(pending, call.consistent)
            expected = self._matcher.batch(prepared.batch, prepared.wanted[0][0], pending)
            read = yield from self._wire.attempt("BatchGetItem", body, expected, call)
            if not isinstance(read.found, Frame):
                found.update(read.found)
            elif len(pending) == len(pks):
                whole.append(read.found)
            else:
                found.update(zip(pending, read.found, strict=True))
            if learns:
                done = len(pending) - len(read.left)
                self._learn(prepared, read.units, read.size, done, call)
            return read.left

        left, error = yield from self._wire.send_until_processed(step, pks, call)
        if whole:
            return whole[0]
        if left:
            found.update(dict.fromkeys(left, error))
        return list(map(found.get, pks))

    def _get_one(
        self, prepared: _Prepared, pk: str, learns: bool, call: Call
    ) -> Operation[Sequence[RowOrError]]:
        body = prepared.reads.get(pk, call.consistent)
        expected = self._matcher.item(prepared.one, pk, prepared.wanted[0][0])
        try:
            answer = yield from self._wire.ask("GetItem", body, expected, call)
        except RequestError as error:
            return [item_error_or_raise(error)]
        if learns:
            self._learn(prepared, answer.units, answer.size, 1, call)
        if answer.damaged:
            return [answer.damaged[0][1]]
        return answer.rows or [None]

    def _learn(self, prepared: _Prepared, units: float, size: int, count: int, call: Call) -> None:
        shape = prepared.wanted[0][1]
        self._costs.saw_items(shape, units / (1 + call.consistent), size, count)

    # --- items of several namespaces ---------------------------------------------------------

    def _get_shared(
        self, wanted: Sequence[GroupKeys], call: Call
    ) -> Operation[list[list[RowOrError]]]:
        """Read items of any groups by as few requests as 100 items each allow.

        A full request of one group is sent and decoded as in any read. The remaining keys of all
        groups share requests, and their items are decoded group by group afterwards.
        """
        direct: list[tuple[int, Sequence[str]]] = []
        loose: list[tuple[int, Sequence[str]]] = []
        for place, want in enumerate(wanted):
            full = len(want.pks) - len(want.pks) % BATCH_GET
            direct += [(place, pks) for pks in chunks(want.pks[:full], BATCH_GET)]
            loose += [(place, want.pks[full:])] if full < len(want.pks) else []
        if len(loose) == 1:  # There is nothing to share with.
            direct, loose = direct + loose, []
        # Two reads of one entity share its item: BatchGetItem refuses a key that comes twice.
        keys = list(dict.fromkeys(ItemKey(pk, wanted[i].sk) for i, pks in loose for pk in pks))
        tasks: list[Callable[[Call], Operation[Any]]] = [
            partial(self._get_batch, self._prepare((wanted[place],)), pks, False)
            for place, pks in direct
        ]
        tasks += [partial(self._get_items, some) for some in chunks(keys, BATCH_GET)]
        results = yield from fan_out(call, tasks, self._concurrency)
        found: list[list[RowOrError]] = [[] for _ in wanted]
        for (place, _), rows in zip(direct, results, strict=False):
            found[place] += rows
        items = {key: item for some in results[len(direct) :] for key, item in some.items()}
        for place, pks in loose:
            found[place] += _rows_of(wanted[place], pks, items)
        return found

    def _get_items(
        self, keys: Sequence[ItemKey], call: Call
    ) -> Operation[dict[ItemKey, RowOrError]]:
        found: dict[ItemKey, RowOrError] = {}

        def step(pending: Sequence[ItemKey]) -> Operation[list[ItemKey]]:
            body = self._bodies.batch_get(pending, call.consistent)
            expected = self._matcher.items(self._items, pending)
            read = yield from self._wire.attempt("BatchGetItem", body, expected, call)
            found.update(read.found)
            return read.left

        left, error = yield from self._wire.send_until_processed(step, keys, call)
        if left:
            found.update(dict.fromkeys(left, error))
        return found

    @cached_property
    def _items(self) -> answers.RowsDecoder:
        """The decoder of a BatchGetItem's response that leaves the items undecoded."""
        return answers.RowsDecoder(answers.BatchGetItemResponse, RawItemShape(self._bodies.layout))

    # --- all groups of an entity -----------------------------------------------------------

    def _query_all(
        self, wanted: Sequence[GroupKeys], call: Call
    ) -> Operation[list[list[RowOrError]]]:
        prepared = self._prepare(wanted)
        tasks = [partial(self._query, prepared, wanted, pk) for pk in wanted[0].pks]
        by_entity = yield from fan_out(call, tasks, self._concurrency)
        return [[found.get(want.sk) for found in by_entity] for want in wanted]

    def _query(
        self, prepared: _Prepared, wanted: Sequence[GroupKeys], pk: str, call: Call
    ) -> Operation[dict[str, RowOrError]]:
        found: dict[str, RowOrError] = {}
        units, start = 0.0, b""
        sks = [want.sk for want in wanted]
        expected = self._matcher.page(prepared.page, pk, min(sks), max(sks))
        while True:
            body = prepared.reads.query(pk, call.consistent, start)
            try:
                answer = yield from self._wire.ask("Query", body, expected, call)
            except RequestError as error:
                return dict.fromkeys(sks, item_error_or_raise(error))
            call.report.queries += 1
            found.update(prepared.split(answer.rows))
            found.update((key.sk, error) for key, error in answer.damaged)
            units += answer.units
            start = bytes(answer.answer.LastEvaluatedKey)
            if not start:
                self._costs.saw_query(wanted, units / (1 + call.consistent))
                return found


def _rows_of(
    want: GroupKeys, pks: Sequence[str], items: Mapping[ItemKey, RowOrError]
) -> Iterator[RowOrError]:
    """Decode some of the items of a group. Errors are returned in their places."""
    found = [items.get(ItemKey(pk, want.sk)) for pk in pks]
    raw = [render_item(item[ATTRIBUTES]) for item in found if isinstance(item, tuple)]
    rows = iter(want.shape.decode_each(raw))
    return (next(rows) if isinstance(item, tuple) else item for item in found)


class _Prepared:
    """Requests for items of some groups, and decoders of their answers, each made when needed."""

    def __init__(self, bodies: Bodies, wanted: Sequence[GroupKeys]) -> None:
        self.wanted = [(want.sk, want.shape) for want in wanted]
        shapes = [want.shape for want in wanted]
        self._shape = shapes[0] if len(shapes) == 1 else _joined(bodies.layout, shapes)
        self.reads: ReadBodies = bodies.reads([want.sk for want in wanted], self._shape)

    @cached_property
    def one(self) -> answers.RowsDecoder:
        """Decodes GetItem's answer."""
        return answers.RowsDecoder(answers.GetItemResponse, self._shape)

    @cached_property
    def batch(self) -> answers.RowsDecoder:
        """Decodes BatchGetItem's."""
        return answers.RowsDecoder(answers.BatchGetItemResponse, self._shape)

    @cached_property
    def page(self) -> answers.RowsDecoder:
        """Decodes Query's."""
        return answers.RowsDecoder(answers.QueryResponse, self._shape)

    @cached_property
    def _slices(self) -> dict[str, slice]:
        """Where the joined shape has the columns of each group."""
        slices, start = {}, 0
        for sk, shape in self.wanted:
            slices[sk] = slice(start, start + len(shape.columns))
            start += len(shape.columns)
        return slices

    def split(self, rows: Sequence[Row]) -> Iterator[tuple[str, Row]]:
        """Rows of the joined shape to those of each group; without those of other groups."""
        if isinstance(self._shape, RawItemShape):
            yield from ((row[SK], row) for row in rows)
            return
        for row in rows:
            place = self._slices.get(row[SK])
            if place is not None:
                times = None if row[TIMES] is None else row[TIMES][place]
                yield row[SK], type(row)((*row[:TIMES], times, *row[FIRST:][place]))


def _joined(layout: TableLayout, shapes: Sequence[Shape]) -> Shape:
    if isinstance(shapes[0], RawItemShape):
        return shapes[0]
    columns = tuple(column for shape in shapes for column in shape.columns)
    projected = all(shape.projected for shape in shapes) and len(columns) <= MOST_PROJECTED
    return Shape(layout, columns, projected)
