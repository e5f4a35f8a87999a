"""How often AWS lets the provisioned capacity of a table be lowered in a day."""

from __future__ import annotations

import math

from chalk_online_store.planning.demand import DAY, HOUR

AT_FIRST = 4
MOST_A_DAY = 27


class Decreases:
    """The decreases made so far in a day, UTC, and whether one more is allowed.

    The developer guide, "Quotas", "Decreasing provisioned throughput": a day begins with up to
    four decreases within one hour, as long as none was made that day; after that one more is
    allowed an hour, as long as there was none in the preceding hour. That makes 27 a day at most:
    four in the first hour, and one in each of the other 23. Moments are seconds since 1970.
    """

    __slots__ = ("_day", "_first", "_last", "_made")

    def __init__(self) -> None:
        self._day = -math.inf
        self._first = self._last = 0.0
        self._made = 0

    def allows(self, moment: float) -> bool:
        """Whether a decrease at this moment is allowed."""
        if moment // DAY != self._day:
            return True
        if self._made < AT_FIRST and moment - self._first < HOUR:
            return True
        return self._made < MOST_A_DAY and moment - self._last >= HOUR

    def add(self, moment: float) -> None:
        """A decrease was made, no earlier than those before."""
        if moment // DAY != self._day:
            self._day, self._first, self._made = moment // DAY, moment, 0
        self._last = moment
        self._made += 1
