"""What waits in a writer: a state machine over queueing, coalescing, sending and failing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from chalk_online_store.codec.changes import Attributes, Change, merge
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.writer.pending import (
    Entry,
    Pending,
    by_arrival,
    by_event_time,
    estimated_units,
)
from chalk_online_store.writer.tickets import EncodedBatch, PendingRow, Priority
from tests.helpers import stress
from tests.test_changes import part, seen, whole
from tests.test_combining import changes

LAYOUT = TableLayout()
KEYS = st.sampled_from([ItemKey(f"a:{n}", "a") for n in range(3)])
PRIORITIES: st.SearchStrategy[Priority] = st.sampled_from(["live", "backfill"])


def codec(namespace: str = "user") -> Any:
    return SimpleNamespace(namespace=SimpleNamespace(name=namespace))


def unit() -> PendingRow:
    return PendingRow.of_replay(EncodedBatch(1))


def entry(change: Change, priority: Priority = "live", namespace: str = "user") -> Entry:
    return Entry(codec(namespace), change, unit(), priority)


def at(key: ItemKey, change: Change) -> Change:
    return Change(key, change.observed_at, change.form, change.attributes, change.expires_at)


class Machine(RuleBasedStateMachine):
    """Changes arrive, are sent in batches, fail and succeed; a table hears of those that do.

    The model is a table that hears of every change when it arrives.
    """

    flights = Bundle("flights")

    @initialize()
    def begin(self) -> None:
        self.pending = Pending(by_event_time)
        self.table: dict[ItemKey, Attributes] = {}
        self.model: dict[ItemKey, Attributes] = {}
        self.units: list[PendingRow] = []
        self.under_way: list[Entry] = []

    @rule(key=KEYS, change=changes(), priority=PRIORITIES)
    def arrive(self, key: ItemKey, change: Change, priority: Priority) -> None:
        change = at(key, change)
        row = unit()
        self.units.append(row)
        self.pending.add(Entry(codec(), change, row, priority))
        self.model[key] = merge(LAYOUT, self.model.get(key), change)

    @rule(priority=PRIORITIES, most=st.integers(1, 3))
    def take(self, priority: Priority, most: int) -> None:
        """No item is in a batch that is in another one, or twice in it."""
        batch = self.pending.take(priority, most, 1e9)
        assert len(batch) <= most
        self.under_way += batch
        keys = [entry.change.key for entry in self.under_way]
        assert len(set(keys)) == len(keys)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        self._done(self._one(data))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), applied=st.booleans())
    def fail(self, data: st.DataObject, applied: bool) -> None:
        """Nobody knows whether a request that failed took effect."""
        entry = self._one(data)
        if applied:
            self._apply(entry)
        self.pending.put_back(entry)

    def _one(self, data: st.DataObject) -> Entry:
        return self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))

    def _apply(self, entry: Entry) -> None:
        key = entry.change.key
        self.table[key] = merge(LAYOUT, self.table.get(key), entry.change)

    def _done(self, entry: Entry) -> None:
        self._apply(entry)
        for row in entry.units:
            row.left -= 1
        self.pending.done(entry)

    @invariant()
    def each_row_waits_for_as_many_entries_as_it_is_in(self) -> None:
        if not hasattr(self, "pending"):
            return
        entries = self.pending.entries() + self.under_way
        for row in self.units:
            assert row.left == sum(entry.units.count(row) for entry in entries)

    def teardown(self) -> None:
        """All that waits is sent: then the table is as if everything had been sent at once."""
        if not hasattr(self, "pending"):
            return
        for entry in self.under_way:
            self._done(entry)
        self.under_way = []
        for _ in range(100):
            batch = self.pending.take("live", 3, 1e9) or self.pending.take("backfill", 3, 1e9)
            for entry in batch:
                self._done(entry)
        assert not self.pending.entries()
        assert all(not row.left for row in self.units)
        assert {key: seen(item) for key, item in self.table.items()} == {
            key: seen(item) for key, item in self.model.items()
        }


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=stress(40), stateful_step_count=40)


def test_writes_of_one_entity_are_one() -> None:
    """Ten rows of an entity that wait together take one write, and all end with it."""
    pending = Pending(by_event_time)
    rows = [entry(whole(time, a=time, b=1, c=1, d=1)) for time in range(10)]
    for row in rows:
        pending.add(row)
    (one,) = pending.take("live", 25, 1e9)
    assert one.change.observed_at == 9
    assert len(one.units) == 10
    assert pending.take("live", 25, 1e9) == []


def test_parts_of_different_times_go_one_after_the_other() -> None:
    """What one change cannot say waits until the first is done, since batches hold no key twice."""
    pending = Pending(by_event_time)
    pending.add(entry(part(2, a=1)))
    pending.add(entry(part(1, b=1)))
    (first,) = pending.take("live", 25, 1e9)
    assert first.change.observed_at == 1
    assert pending.take("live", 25, 1e9) == []
    pending.done(first)
    (second,) = pending.take("live", 25, 1e9)
    assert second.change.observed_at == 2


def test_by_arrival_the_last_replaces_the_others() -> None:
    """Without an order in time, whatever came last is what is put, though it is older."""
    pending = Pending(by_arrival)
    pending.add(entry(whole(2, a=1, b=1, c=1, d=1)))
    last = entry(part(1, a=7))
    pending.add(last)
    assert pending.take("live", 25, 1e9) == [last]
    assert len(last.units) == 2


def test_live_rows_pull_an_item_forward() -> None:
    """A live write does not wait for backfills, though one of its item came before."""
    pending = Pending(by_event_time)
    pending.add(entry(part(1, b=1), "backfill"))
    assert pending.ready("live") == 0
    pending.add(entry(part(2, a=1), "live"))
    assert (pending.ready("live"), pending.ready("backfill")) == (1, 0)


def test_namespaces_take_turns() -> None:
    """A namespace with much to write does not hold up another one."""
    pending = Pending(by_event_time)
    for number in range(10):
        key = ItemKey(f"a:{number}", "a")
        pending.add(entry(at(key, part(1, a=1))))
    pending.add(entry(at(ItemKey("b:1", "a"), part(1, a=1)), namespace="other"))
    names = [pending.take("live", 3, 1e9)[0].codec.namespace.name for _ in range(2)]
    assert sorted(names) == ["other", "user"]


def test_a_batch_stays_within_its_units() -> None:
    """A batch takes no more write units than it may, though always one change."""
    pending = Pending(by_event_time)
    for number in range(4):
        key = ItemKey(f"a:{number}", "a")
        change = at(key, part(1, a=1))
        large = Change(key, 1, change.form, (b'{"S":"%b"}' % (b"x" * 3000),), None)
        pending.add(entry(large))
    assert estimated_units(large) == 3
    assert len(pending.take("live", 25, 6.5)) == 2
    assert len(pending.take("live", 25, 0.1)) == 1


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_suspect_is_sent_alone(position: int) -> None:
    """A change that may have spoiled a batch shares none again."""
    pending = Pending(by_event_time)
    found = [entry(at(ItemKey(f"a:{number}", "a"), part(1, a=1))) for number in range(3)]
    found[position].alone = True
    for one in found:
        pending.add(one)
    sizes: dict[int, int] = {}
    while batch := pending.take("live", 25, 1e9):
        sizes |= {id(one): len(batch) for one in batch}
    assert sizes[id(found[position])] == 1
