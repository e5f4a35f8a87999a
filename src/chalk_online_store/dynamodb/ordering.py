"""Writes in event time: a late, older value never overwrites a newer one."""

from __future__ import annotations

from chalk_online_store.backend import Applied, Call
from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    fresh_item,
    leaves_newer,
    merge,
    parse_item,
)
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.dynamodb import updates
from chalk_online_store.dynamodb.bodies import Bodies
from chalk_online_store.dynamodb.matching import Matcher
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
        for part in updates.sendable(change):
            outcomes.add((yield from self._take_short_cut(part, call, again=call.replay)))
        return _summary(change, outcomes)

    def _take_short_cut(
        self, change: Change, call: Call, again: bool = False
    ) -> Operation[Applied]:
        """One request. `again` says that the item may have the change already."""
        bodies = self._bodies
        try:
            if change.erases:
                tombstone = fresh_item(bodies.layout, change)
                body = bodies.put(tombstone, updates.erase(change, again))
                yield from self._write("PutItem", change.key, body, call)
            else:
                body = bodies.update(change.key, updates.short_cut(bodies.layout, change, again))
                yield from self._write("UpdateItem", change.key, body, call)
        except ConditionFailed as refused:
            item = yield from self._found(change.key, refused, call)
            return (yield from self._settle(change, item, call))
        return Applied.WHOLLY

    def _settle(self, change: Change, item: Attributes, call: Call) -> Operation[Applied]:
        """Apply a change to an item that refused it."""
        outcomes = set()
        for part in updates.late(self._bodies.layout, item, change):
            outcomes.add((yield from self._apply_exactly(part, item, call)))
        return _summary(change, outcomes)

    def _apply_exactly(self, change: Change, item: Attributes, call: Call) -> Operation[Applied]:
        layout = self._bodies.layout
        merged = merge(layout, item, change)
        if merged is item:
            return Applied.SUPERSEDED
        outcome = Applied.PARTLY
        if leaves_newer(layout, merged, change):
            outcome = Applied.LEFT_NEWER
        if merged == item:  # It says so already.
            return outcome
        if not item or (change.erases and not updates.is_late(item, change)):
            return (yield from self._take_short_cut(change, call))
        difference = updates.difference(layout, item, merged, change)
        body = self._bodies.update(change.key, difference)
        try:
            yield from self._write("UpdateItem", change.key, body, call)
        except ConditionFailed as refused:  # Another writer was faster: reckon again.
            item = yield from self._found(change.key, refused, call)
            return (yield from self._settle(change, item, call))
        return outcome

    def _found(self, key: ItemKey, refused: ConditionFailed, call: Call) -> Operation[Attributes]:
        """The item that refused a change; empty where it is gone by now."""
        if refused.item is not None:
            return parse_item(refused.item)
        expected = self._matcher.raw_item(key)
        answer = yield from self._wire.ask("GetItem", self._bodies.get_whole(key), expected, call)
        return {name: bytes(raw) for name, raw in (answer.Item or {}).items()}


def _summary(change: Change, outcomes: set[Applied]) -> Applied:
    """The outcome of a change from those of its parts."""
    if len(outcomes) == 1:
        return outcomes.pop()
    if change.deletes and not outcomes.isdisjoint((Applied.SUPERSEDED, Applied.LEFT_NEWER)):
        return Applied.LEFT_NEWER
    return Applied.PARTLY
