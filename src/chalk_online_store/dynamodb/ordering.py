"""Writes in event time: a late, older value never overwrites a newer one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from chalk_online_store.backend import Applied, Call
from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    difference,
    merge,
    parse_item,
    render_fresh,
)
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.dynamodb import updates
from chalk_online_store.dynamodb.bodies import Bodies
from chalk_online_store.dynamodb.matching import Matcher
from chalk_online_store.dynamodb.updates import ShortCut
from chalk_online_store.dynamodb.wire import Wire
from chalk_online_store.effects import Operation
from chalk_online_store.errors import ConditionFailed


class OrderedWrites:
    """Applies changes as `codec.changes.merge` says, with one request where nothing is newer."""

    def __init__(self, wire: Wire, bodies: Bodies, matcher: Matcher) -> None:
        self._wire = wire
        self._bodies = bodies
        self._matcher = matcher

    def _write(self, operation: str, key: ItemKey, body: bytes, call: Call) -> Operation[None]:
        expected = self._matcher.write(operation, key)
        yield from self._wire.ask(operation, body, expected, call)

    def apply(self, change: Change, call: Call) -> Operation[Applied]:
        """Apply a change. Raises `RequestError`; trying again is safe, whatever was sent."""
        outcomes = set()
        for part, short_cut in updates.sendable(self._bodies.layout, change, call.replay):
            outcomes.add((yield from self._take_short_cut(part, short_cut, call)))
        return _summary(outcomes)

    def _take_short_cut(
        self, change: Change, short_cut: ShortCut, call: Call
    ) -> Operation[Applied]:
        """One request; more if the item has something newer, or may have the change already."""
        bodies, (operation, members) = self._bodies, short_cut
        if operation == "PutItem":
            body = bodies.put(render_fresh(bodies.layout, change), members)
        else:
            body = bodies.update(change.key, members)
        try:
            yield from self._write(operation, change.key, body, call)
        except ConditionFailed as refused:
            item = yield from self._found(change.key, refused, call)
            return (yield from self._settle(change, item, call))
        return Applied.WHOLLY

    def _settle(self, change: Change, item: Attributes, call: Call) -> Operation[Applied]:
        """Apply a change to an item that refused it, in parts if it does not fit."""
        layout = self._bodies.layout
        outcomes = set()
        pending = [change]
        while pending:
            part = pending.pop(0)
            merged = merge(layout, item, part)
            if merged is item:
                outcomes.add(Applied.SUPERSEDED)
                continue
            step = self._next_step(part, item, merged)
            if step is None:
                pending = [*updates.smaller(layout, item, part), *pending]
                continue
            applied, item = yield from step(call)
            if applied is None:  # Another writer was faster: compute it again.
                pending.insert(0, part)
            else:
                outcomes.add(applied)
        return _summary(outcomes)

    def _next_step(self, change: Change, item: Attributes, merged: Attributes) -> Step | None:
        """Return the step that turns an item into `merged`; None if no single request can."""
        layout = self._bodies.layout
        found = difference(layout, item, merged)
        if not any(found):  # The item has these values already.
            return partial(_no_step, item)
        if not item or (change.erases and not updates.is_late(item, change)):
            short_cut = updates.short_cut(layout, change, again=False)
            if short_cut is None:
                return None
            return partial(self._begin_again, change, short_cut, merged)
        members = updates.exact(layout, item, found, change)
        if members is None:
            return None
        return partial(self._make_exact, change.key, members, merged)

    def _begin_again(
        self, change: Change, short_cut: ShortCut, merged: Attributes, call: Call
    ) -> Operation[tuple[Applied | None, Attributes]]:
        outcome = yield from self._take_short_cut(change, short_cut, call)
        if outcome is Applied.WHOLLY:
            return outcome, merged
        return outcome, (yield from self._read(change.key, call))

    def _make_exact(
        self, key: ItemKey, members: bytes, merged: Attributes, call: Call
    ) -> Operation[tuple[Applied | None, Attributes]]:
        body = self._bodies.update(key, members)
        try:
            yield from self._write("UpdateItem", key, body, call)
        except ConditionFailed as refused:
            return None, (yield from self._found(key, refused, call))
        return Applied.PARTLY, merged

    def _found(self, key: ItemKey, refused: ConditionFailed, call: Call) -> Operation[Attributes]:
        """The item that refused a change; empty where it is gone by now."""
        if refused.item is not None:
            return parse_item(refused.item)
        return (yield from self._read(key, call))

    def _read(self, key: ItemKey, call: Call) -> Operation[Attributes]:
        expected = self._matcher.raw_item(key)
        answer = yield from self._wire.ask("GetItem", self._bodies.get_whole(key), expected, call)
        return {name: bytes(raw) for name, raw in (answer.Item or {}).items()}


Step = Callable[[Call], Operation[tuple[Applied | None, Attributes]]]
"""What became of a change, None if it has to be computed again, and the item after it."""


def _no_step(item: Attributes, call: Call) -> Operation[tuple[Applied | None, Attributes]]:
    yield from ()
    return Applied.PARTLY, item


def _summary(outcomes: set[Applied]) -> Applied:
    return outcomes.pop() if len(outcomes) == 1 else Applied.PARTLY
