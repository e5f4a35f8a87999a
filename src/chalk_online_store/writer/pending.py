"""Changes that wait to be sent, item by item: what can be said at once is said at once.

Used in the writer's loop alone.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

from chalk_online_store.codec.changes import Change, merge_changes, subtract_newer
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.writer.tickets import PendingRow, Priority

_ORDER: dict[Priority, int] = {"live": 0, "backfill": 1}


class Entry:
    """A change that waits, or is under way, and the rows that it is for.

    `replay` says that it may have been made before, `alone` that it has to be sent so.
    """

    __slots__ = ("alone", "change", "codec", "priority", "replay", "units")

    def __init__(
        self,
        codec: NamespaceCodec,
        change: Change,
        unit: PendingRow,
        priority: Priority,
        replay: bool = False,
    ) -> None:
        self.codec = codec
        self.change = change
        self.units = [unit]
        self.priority = priority
        self.replay = replay
        self.alone = False
        unit.left += 1

    @property
    def cost(self) -> float:
        """How many WCU it may take."""
        return estimated_units(self.change)

    def absorb(self, other: Entry, gone: bool) -> None:
        """The rows of another entry wait for this one, too, or instead where that is gone."""
        self.units += other.units
        if not gone:
            for unit in other.units:
                unit.left += 1


Combine = Callable[[list[Entry], Entry], list[Entry]]
"""Makes as few entries of one item as possible; the first is sent first."""


def by_event_time(waiting: list[Entry], arriving: Entry) -> list[Entry]:
    """The newest observed-at wins; of two equal ones, the later to arrive."""
    kept: list[Entry] = []
    new: Entry | None = arriving
    for old in reversed(waiting):
        if new is None:
            kept.append(old)
        elif old.change.observed_at > new.change.observed_at:
            kept.append(old)
            new = _reduced(new, old)
        elif not _between(kept, new) and (one := _joined(old, new)) is not None:
            new = one
        elif (left := _reduced(old, new)) is not None:
            kept.append(left)
    kept.reverse()
    if new is not None:
        kept.append(new)
    return sorted(kept, key=lambda entry: entry.change.observed_at)


def by_arrival(waiting: list[Entry], arriving: Entry) -> list[Entry]:
    """Whatever arrives last replaces what was there."""
    for old in waiting:
        arriving.absorb(old, gone=True)
    return [arriving]


def _reduced(older: Entry, newer: Entry) -> Entry | None:
    """What is left of an older entry."""
    left = subtract_newer(older.change, newer.change)
    if left is older.change:
        return older
    newer.absorb(older, gone=left is None)
    if left is None:
        return None
    older.change = left
    return older


def _between(kept: list[Entry], new: Entry) -> bool:
    """Whether one of the same time stands before a new one: none is joined across it."""
    return bool(kept) and kept[-1].change.observed_at == new.change.observed_at


def _joined(earlier: Entry, later: Entry) -> Entry | None:
    if earlier.change.observed_at != later.change.observed_at:
        return None
    one = merge_changes(earlier.change, later.change)
    if one is None:
        return None
    later.change = one
    later.absorb(earlier, gone=True)
    return later


class ItemQueue:
    """One item: what waits for it, oldest first, and whether something is under way."""

    __slots__ = ("flying", "lane", "waiting")

    def __init__(self) -> None:
        self.waiting: list[Entry] = []
        self.flying = False
        self.lane: PriorityQueue | None = None


class PriorityQueue:
    """The items of one namespace and priority that something can be sent of, in their order."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: OrderedDict[ItemKey, ItemQueue] = OrderedDict()


class Pending:
    """All that waits. No item is ever in two batches at once, nor twice in one."""

    def __init__(self, combine: Combine) -> None:
        self._combine = combine
        self._slots: dict[ItemKey, ItemQueue] = {}
        self._lanes: dict[Priority, OrderedDict[str, PriorityQueue]] = {
            "live": OrderedDict(),
            "backfill": OrderedDict(),
        }

    def add(self, entry: Entry) -> None:
        """One more change, after all others of its item."""
        key = entry.change.key
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = ItemQueue()
            slot.waiting.append(entry)
        else:
            slot.waiting = self._combined(slot.waiting, entry)
        self._place(key, slot)

    def _combined(self, waiting: list[Entry], arriving: Entry) -> list[Entry]:
        """A replay has its place in time, not in arrival."""
        replays = arriving.replay or any(entry.replay for entry in waiting)
        return (by_event_time if replays else self._combine)(waiting, arriving)

    def put_back(self, entry: Entry) -> None:
        """A change that was under way has failed: it waits again, before all others of its item."""
        key = entry.change.key
        slot = self._slots[key]
        slot.flying = False
        later, slot.waiting = slot.waiting, [entry]
        for other in later:
            slot.waiting = self._combined(slot.waiting, other)
        self._place(key, slot, first=True)

    def done(self, entry: Entry) -> None:
        """A change that was under way is done."""
        key = entry.change.key
        slot = self._slots[key]
        slot.flying = False
        if slot.waiting:
            self._place(key, slot)
        else:
            del self._slots[key]

    def _place(self, key: ItemKey, slot: ItemQueue, first: bool = False) -> None:
        """Put an item into the lane of the most urgent that waits for it."""
        if slot.flying:
            return
        best = slot.waiting[0]
        if len(slot.waiting) > 1:
            best = min(slot.waiting, key=lambda entry: _ORDER[entry.priority])
        lanes, name = self._lanes[best.priority], best.codec.namespace.name
        lane = lanes.get(name) or lanes.setdefault(name, PriorityQueue())
        if slot.lane is not lane:
            if slot.lane is not None:
                slot.lane.items.pop(key)
            slot.lane = lane
            lane.items[key] = slot
            if first:
                lane.items.move_to_end(key, last=False)

    def take(self, priority: Priority, most: int, units: float) -> list[Entry]:
        """Changes of one namespace to send together: at most so many, and of so many WCU.

        At least one, where there is any. They are under way then. Namespaces take turns.
        """
        lanes = self._lanes[priority]
        for name, lane in lanes.items():
            if lane.items:
                lanes.move_to_end(name)
                return self._take(lane, most, units)
        return []

    def _take(self, lane: PriorityQueue, most: int, units: float) -> list[Entry]:
        taken: list[Entry] = []
        for key, slot in list(_first(lane.items, most)):
            entry = slot.waiting[0]
            if units < math.inf:
                units -= entry.cost
            alone = entry.alone or (taken and entry.replay != taken[0].replay)
            if taken and (units < 0 or alone):
                break
            del lane.items[key]
            slot.waiting = slot.waiting[1:]
            slot.flying, slot.lane = True, None
            taken.append(entry)
            if entry.alone:
                break
        return taken

    def ready(self, *priorities: Priority) -> int:
        """How many items something can be sent of."""
        return sum(len(lane.items) for p in priorities for lane in self._lanes[p].values())

    @property
    def oldest(self) -> float | None:
        """When the oldest of all rows that wait came, about, on the monotonic clock."""
        firsts = (
            next(iter(lane.items.values())).waiting[0].units[0].submission.ticket.since
            for lanes in self._lanes.values()
            for lane in lanes.values()
            if lane.items
        )
        return min(firsts, default=None)

    def entries(self) -> list[Entry]:
        """All that waits."""
        return [entry for slot in self._slots.values() for entry in slot.waiting]


def _first(items: OrderedDict[ItemKey, ItemQueue], most: int) -> list[tuple[ItemKey, ItemQueue]]:
    found = []
    for pair in items.items():
        found.append(pair)
        if len(found) == most:
            break
    return found


def estimated_units(change: Change) -> float:
    """WCU that a change takes, about: from the bytes of its JSON, which are somewhat more.

    AWS: a unit for each KB, begun or full, of the item. What it was before is not known.
    """
    size = sum(map(len, change.attributes)) - 6 * len(change.attributes) + len(change.key.pk) + 40
    return float(max(1, -(-size // 1024)))
