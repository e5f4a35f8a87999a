"""Writes in event time: a late, older value never overwrites a newer one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from chalk_online_store.backend import Call, WriteOutcome
from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    difference,
    leaves_newer,
    merge,
    parse_item,
    render_fresh,
)
from chalk_online_store.codec.layout import BASE, ItemKey
from chalk_online_store.dynamodb import updates
from chalk_online_store.dynamodb.bodies import Bodies
from chalk_online_store.dynamodb.expectations import Expectations
from chalk_online_store.dynamodb.matching import Matcher
from chalk_online_store.dynamodb.updates import Expected, ShortCut
from chalk_online_store.dynamodb.wire import Wire
from chalk_online_store.effects import Operation
from chalk_online_store.errors import ConditionFailed, RequestRefused


class OrderedWrites:
    """Applies changes as `codec.changes.merge` says, with one request if its condition holds."""

    def __init__(self, wire: Wire, bodies: Bodies, matcher: Matcher) -> None:
        self._wire = wire
        self._bodies = bodies
        self._matcher = matcher
        self._expectations = Expectations()
        self._parses_nesting = True
        """False for an engine that refuses an `if_not_exists` within another. AWS parses it, moto
        does not."""

    def _write(self, operation: str, key: ItemKey, body: bytes, call: Call) -> Operation[None]:
        expected = self._matcher.write(operation, key)
        yield from self._wire.ask(operation, body, expected, call)

    def apply(self, change: Change, call: Call) -> Operation[WriteOutcome]:
        """Apply a change. Raises `RequestError`; trying again is safe, whatever was sent."""
        outcomes = set()
        layout, expect = self._bodies.layout, self._expectations.expect
        for part, short_cut in updates.sendable(layout, change, call.replay, expect):
            outcomes.add((yield from self._update_if_newer(part, short_cut, call)))
        return _summary(change, outcomes)

    def _update_if_newer(
        self, change: Change, short_cut: ShortCut, call: Call
    ) -> Operation[WriteOutcome]:
        """One request; more if the item has something newer, or may have the change already."""
        bodies, (operation, members, expected) = self._bodies, short_cut
        if short_cut.is_nested and not self._parses_nesting:
            return (yield from self._settle_read(change, call))
        if operation == "PutItem":
            body = bodies.put(render_fresh(bodies.layout, change), members)
        else:
            body = bodies.update(change.key, members)
        try:
            yield from self._write(operation, change.key, body, call)
        except ConditionFailed as refused:
            item = yield from self._found(change.key, refused, call)
            self._expectations.refused(change, expected, item)
            return (yield from self._settle(change, item, call))
        except RequestRefused as error:
            if not short_cut.is_nested or _NOT_PARSED not in error.engine_message:
                raise
            self._parses_nesting = False
            return (yield from self._settle_read(change, call))
        self._expectations.accepted(change.form, expected)
        return (
            WriteOutcome.PARTIALLY_APPLIED if expected is Expected.NEWER else WriteOutcome.APPLIED
        )

    def _settle_read(self, change: Change, call: Call) -> Operation[WriteOutcome]:
        """Apply a change by two requests: read the item, then make the exact difference."""
        item = yield from self._read(change.key, call)
        return (yield from self._settle(change, item, call))

    def _settle(self, change: Change, item: Attributes, call: Call) -> Operation[WriteOutcome]:
        """Apply a change to an item that refused it, in parts if it does not fit."""
        layout = self._bodies.layout
        outcomes = set()
        pending = [change]
        while pending:
            part = pending.pop(0)
            merged = merge(layout, item, part)
            if merged is item:
                outcomes.add(WriteOutcome.SUPERSEDED)
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
        return _summary(change, outcomes)

    def _next_step(self, change: Change, item: Attributes, merged: Attributes) -> Step | None:
        """Return the step that turns an item into `merged`; None if no single request can."""
        layout = self._bodies.layout
        outcome = (
            WriteOutcome.LEFT_NEWER
            if leaves_newer(layout, merged, change)
            else WriteOutcome.PARTIALLY_APPLIED
        )
        found = difference(layout, item, merged)
        # A whole write over own times leaves a `BASE` that equals `LATEST`, which says no more than
        # its absence. Removing it would be a write, and a replay must not write what is there.
        if not found.values and found.removed <= {BASE}:  # The item has these values already.
            return partial(_no_step, item, outcome)
        is_fresh = not item and (change.form.whole or self._parses_nesting)
        if is_fresh or (change.erases and not updates.is_late(item, change)):
            short_cut = updates.short_cut(layout, change, again=False)
            if short_cut is None:
                return None
            return partial(self._begin_again, change, short_cut, merged)
        members = updates.exact(layout, item, found, change)
        if members is None:
            return None
        return partial(self._make_exact, change.key, members, merged, outcome)

    def _begin_again(
        self, change: Change, short_cut: ShortCut, merged: Attributes, call: Call
    ) -> Operation[tuple[WriteOutcome | None, Attributes]]:
        outcome = yield from self._update_if_newer(change, short_cut, call)
        if outcome is WriteOutcome.APPLIED:
            return outcome, merged
        return outcome, (yield from self._read(change.key, call))

    def _make_exact(
        self, key: ItemKey, members: bytes, merged: Attributes, outcome: WriteOutcome, call: Call
    ) -> Operation[tuple[WriteOutcome | None, Attributes]]:
        body = self._bodies.update(key, members)
        try:
            yield from self._write("UpdateItem", key, body, call)
        except ConditionFailed as refused:
            return None, (yield from self._found(key, refused, call))
        return outcome, merged

    def _found(self, key: ItemKey, refused: ConditionFailed, call: Call) -> Operation[Attributes]:
        """The item that refused a change; empty where it is gone by now."""
        if refused.item is not None:
            return parse_item(refused.item)
        return (yield from self._read(key, call))

    def _read(self, key: ItemKey, call: Call) -> Operation[Attributes]:
        expected = self._matcher.raw_item(key)
        answer = yield from self._wire.ask("GetItem", self._bodies.get_whole(key), expected, call)
        return {name: bytes(raw) for name, raw in (answer.Item or {}).items()}


_NOT_PARSED = "Invalid UpdateExpression"

Step = Callable[[Call], Operation[tuple[WriteOutcome | None, Attributes]]]
"""What became of a change, None if it has to be computed again, and the item after it."""


def _no_step(
    item: Attributes, outcome: WriteOutcome, call: Call
) -> Operation[tuple[WriteOutcome | None, Attributes]]:
    yield from ()
    return outcome, item


def _summary(change: Change, outcomes: set[WriteOutcome]) -> WriteOutcome:
    """The outcome of a change from those of its parts."""
    if len(outcomes) == 1:
        return outcomes.pop()
    if change.deletes and not outcomes.isdisjoint(
        (WriteOutcome.SUPERSEDED, WriteOutcome.LEFT_NEWER)
    ):
        return WriteOutcome.LEFT_NEWER
    return WriteOutcome.PARTIALLY_APPLIED
