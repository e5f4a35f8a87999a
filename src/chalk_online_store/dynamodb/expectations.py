"""Choice of the first form of a conditional write, from the outcomes of earlier writes.

Problem. A refused condition is billed like the write, and a second write follows. Two usual
workloads were refused at each write: a whole write after a part of the group was written apart,
and a partial write that is older than another feature of the same item.

Approach. `updates.Expected` lists the expectations that a request can have of the item. For each
form of a change, counters show which expectation would have been right lately. That takes no read:
a refusal comes with the item, and an accepted request shows that its expectation held.

- Partial changes keep a saturating counter, as branch predictors do: an item with another, newer
  feature counts up, any other counts down. So a lane that is always late is refused once, and a
  mixed one is refused about as often as the rarer of both cases occurs.
- Whole changes move to `OWN_TIMES` when more than `OWN_TIMES_SHARE` of the plain ones were refused
  for own times, and stay there. That form accepts all that the plain one accepts, but leaves
  `BASE` in the item: 10 bytes, which cost a further WCU in 1 % of writes.

Invariant. An expectation decides about the number of requests, never about what is stored. Threads
may lose an update of a counter, which costs at most one more refusal.
"""

from __future__ import annotations

from dataclasses import dataclass

from chalk_online_store.codec.changes import Attributes, Change, ChangeTemplate, Times, read_number
from chalk_online_store.codec.layout import BASE, ERASED, WIDTH, own
from chalk_online_store.dynamodb.updates import Expected
from chalk_online_store.errors import DamagedItem

OWN_TIMES_SHARE = 0.02
"""The refused share of plain whole writes above which `OWN_TIMES` costs less than refusals."""

COUNTER_LIMIT = 2
"""The bound of a partial form's counter, in both directions."""

_WINDOW = 1024
"""The number of plain whole writes at which both counts are halved."""

_MAX_FORMS = 4096


@dataclass(slots=True)
class _History:
    newer: int = 0
    plain_count: int = 0
    own_times_count: int = 0


class Expectations:
    """Outcomes of conditional writes, by form of the change. Shared by threads."""

    def __init__(self) -> None:
        self._histories: dict[ChangeTemplate, _History] = {}

    def expect(self, form: ChangeTemplate) -> Expected:
        """Return what to expect for the next change of a form."""
        history = self._histories.get(form)
        if history is None:
            return Expected.PLAIN
        if not form.whole:
            return Expected.NEWER if history.newer > 0 else Expected.PLAIN
        is_frequent = history.own_times_count > OWN_TIMES_SHARE * history.plain_count
        return Expected.OWN_TIMES if is_frequent else Expected.PLAIN

    def accepted(self, form: ChangeTemplate, expected: Expected) -> None:
        """Record that a request of this expectation was accepted."""
        if not form.whole:
            history = self._histories.get(form)  # A form that was never refused needs no entry.
            if history is not None:
                self._count_newer(history, expected is Expected.NEWER)
        elif expected is Expected.PLAIN:
            self._count_plain(self._history(form), has_own_times=False)

    def refused(self, change: Change, expected: Expected, item: Attributes) -> None:
        """Record that a request of this expectation was refused by an item."""
        try:
            self._record(change, expected, item)
        except DamagedItem:  # The merge raises it if the change needs the damaged attribute.
            return

    def _record(self, change: Change, expected: Expected, item: Attributes) -> None:
        form = change.form
        if form.whole:
            if expected is Expected.PLAIN:
                self._count_plain(self._history(form), _accepts_own_times(item, change))
        elif _accepts_newer(item, change):
            self._count_newer(self._history(form), is_newer=True)
        elif Times(item).latest <= change.observed_at:
            self._count_newer(self._history(form), is_newer=False)

    def _history(self, form: ChangeTemplate) -> _History:
        history = self._histories.get(form)
        if history is None:
            if len(self._histories) >= _MAX_FORMS:
                self._histories = {}
            history = self._histories[form] = _History()
        return history

    @staticmethod
    def _count_newer(history: _History, is_newer: bool) -> None:
        moved = history.newer + (1 if is_newer else -1)
        history.newer = min(max(moved, -COUNTER_LIMIT), COUNTER_LIMIT)

    @staticmethod
    def _count_plain(history: _History, has_own_times: bool) -> None:
        history.plain_count += 1
        history.own_times_count += has_own_times
        if history.plain_count >= _WINDOW:
            history.plain_count //= 2
            history.own_times_count //= 2


def _accepts_own_times(item: Attributes, change: Change) -> bool:
    """Return True if the request for `OWN_TIMES` would have been accepted."""
    return (
        BASE in item
        and Times(item).latest <= change.observed_at
        and (read_number(item.get(WIDTH)) or 0) <= change.form.width
    )


def _accepts_newer(item: Attributes, change: Change) -> bool:
    """Return True if the request for `NEWER` would have been accepted."""
    times = Times(item)
    own_times = (read_number(item.get(own(name))) for name in change.form.kept + change.form.gone)
    return (
        times.latest > change.observed_at
        and BASE in item
        and ERASED not in item
        and times.base <= change.observed_at
        and all(time is None or time <= change.observed_at for time in own_times)
    )
