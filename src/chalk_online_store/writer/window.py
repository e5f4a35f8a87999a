"""What regions have acknowledged lately: kept, to be written again where a region is lost.

AWS: a Global Table replicates asynchronously, usually within a second, without a guarantee. So
what a region had acknowledged shortly before it was lost may be nowhere else.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator


class EncodedBatch:
    """Changes that were encoded, and spooled, together.

    `id` is that of its record in the spool; `body` is the record itself, where there is no spool
    but it may be needed again. `left` counts the rows that are not done, `regions` says when each
    region acknowledged some of them last, in seconds on the monotonic clock.
    """

    __slots__ = ("body", "id", "left", "regions")

    def __init__(self, left: int, body: bytes | None = None) -> None:
        self.id: int | None = None
        self.body = body
        self.left = left
        self.regions: dict[str, float] = {}

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""
        return len(self.body or b"")


class ReplayBuffer:
    """Parcels that are done, of the last `seconds`; at most `max_bytes` of them in memory."""

    def __init__(self, seconds: float, max_bytes: int) -> None:
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._done: deque[tuple[float, EncodedBatch]] = deque()
        self._fresh: list[EncodedBatch] = []
        self._owed: dict[str, list[EncodedBatch]] = {}
        self._reasons: Counter[EncodedBatch] = Counter()
        self.bytes = 0
        self.shortened = 0
        """Parcels that were let go of too early, for want of memory."""

    def add(self, parcel: EncodedBatch, now: float) -> None:
        """A parcel is done, or was written again."""
        self._done.append((now, parcel))
        self._fresh.append(parcel)
        self._keep(parcel)

    def fresh(self) -> list[EncodedBatch]:
        """The parcels that were added since this was asked last."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def give_back(self, parcels: Iterable[EncodedBatch]) -> None:
        """These parcels could not be looked at: `fresh` returns them again."""
        self._fresh += parcels

    def expire(self, now: float) -> list[EncodedBatch]:
        """The parcels that need not be kept any longer."""
        return list(self._expired(now - self._seconds))

    def _expired(self, before: float) -> Iterator[EncodedBatch]:
        while self._done and (self._done[0][0] < before or self.bytes > self._max_bytes):
            done_at, parcel = self._done.popleft()
            self.shortened += done_at >= before
            yield from self._let_go(parcel)

    def acknowledged(self, region: str, now: float) -> list[EncodedBatch]:
        """The parcels of which a region has acknowledged something lately."""
        since = now - self._seconds
        found = (parcel for _, parcel in self._done)
        return [parcel for parcel in found if parcel.regions.get(region, since) > since]

    def _keep(self, parcel: EncodedBatch) -> None:
        """There is one more reason to."""
        self.bytes += 0 if self._reasons[parcel] else parcel.size
        self._reasons[parcel] += 1

    def _let_go(self, parcel: EncodedBatch) -> Iterator[EncodedBatch]:
        """There is one reason less; gives the parcel where that was the last."""
        self._reasons[parcel] -= 1
        if not self._reasons[parcel]:
            del self._reasons[parcel]
            self.bytes -= parcel.size
            yield parcel

    # --- what a region is owed that is away ---

    def schedule_replay(self, region: str, parcels: Iterable[EncodedBatch]) -> None:
        """Keep parcels until a region is back and has them again."""
        pending_replay = self._owed.setdefault(region, [])
        for parcel in parcels:
            pending_replay.append(parcel)
            self._keep(parcel)

    @property
    def regions_to_replay(self) -> list[str]:
        """The regions that are owed something."""
        return list(self._owed)

    @property
    def replay_backlog(self) -> int:
        """How many parcels regions are owed."""
        return sum(map(len, self._owed.values()))

    def pending_replay(self, region: str) -> list[EncodedBatch]:
        """What a region is owed."""
        return self._owed[region]

    def settled(self, region: str) -> list[EncodedBatch]:
        """A region has what it was owed: the parcels that need not be kept any longer."""
        return [gone for parcel in self._owed.pop(region) for gone in self._let_go(parcel)]
