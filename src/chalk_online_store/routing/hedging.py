"""How many reads may be asked twice."""

from __future__ import annotations


class HedgeBudget:
    """A token bucket: each request brings `share` of a hedge, of which `burst` are kept."""

    def __init__(self, share: float, burst: int) -> None:
        self._share = share
        self._burst = float(burst)
        self._left = float(burst)

    def earn(self) -> None:
        """A request was made."""
        self._left = min(self._burst, self._left + self._share)

    def take(self) -> bool:
        """Spend a hedge, if there is one."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
