"""What a table's partitions serve of a demand, where keys are not asked for alike. A simulation.

It checks the simulation of the whole table (`autoscaling`), which knows no keys, and shows what
that one cannot: a hot partition throttles although the table has room. One dimension, read or
write. The rules, each by its source:

- The developer guide, "Best practices for designing and using partition keys" and "Warm
  throughput": a partition serves at most 3,000 read and 1,000 write units a second. It has up to
  10 GB. A key's hash tells its partition.
- "Burst and adaptive capacity": each partition keeps up to 300 seconds of its unused throughput.
  A partition that is asked for more than its share uses what others leave, at once, as long as
  neither the table's capacity nor the partition's limit is exceeded.
- AWS's knowledge center, "dynamodb-spiky-workloads-short-intervals": burst capacity does not help
  beyond the partition's limit.
- "Amazon DynamoDB: a scalable, predictably performant, and fully managed NoSQL database service"
  (USENIX ATC 2022), section 4: a partition that stays hot is split where that halves what is asked
  of it, and not where a single key makes it hot. That takes minutes.

AWS does not say when a partition is hot. Assumed here: while 80 % of its limit or more are asked
of it for `split_after` seconds. Keys are asked for in the same proportions all the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chalk_online_store.planning.demand import Demand, Units
from chalk_online_store.planning.runs import Run
from chalk_online_store.planning.traffic import Numbers, refuse

READ_LIMIT = 3_000.0
WRITE_LIMIT = 1_000.0
"""Units a second of a partition."""

GIGABYTES = 10.0
"""What a partition may hold."""

HOT = 0.8
"""The share of its limit from which on a partition is hot. Assumed."""

_LEAST = 1e-9


def partition_count(read: float = 0.0, write: float = 0.0, gigabytes: float = 0.0) -> int:
    """How many partitions a table needs at least, for its units a second and for its size.

    A partition serves 3,000 read units or 1,000 write units or a mix. What a table once had it
    keeps: AWS splits partitions, and never merges them.
    """
    refuse(
        [
            ("read", read, 0 <= read < math.inf, "0 units a second or more"),
            ("write", write, 0 <= write < math.inf, "0 units a second or more"),
            ("gigabytes", gigabytes, 0 <= gigabytes < math.inf, "0 or more"),
        ]
    )
    by_units = math.ceil(round(read / READ_LIMIT + write / WRITE_LIMIT, 9))
    return max(1, by_units, math.ceil(gigabytes / GIGABYTES))


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """Keys in the order of their hashes, and how much of the demand each has.

    `hashes` rise from 0 to below 1, `shares` add up to 1.
    """

    hashes: Units
    shares: Units

    @property
    def hottest(self) -> int:
        """The place of the key that is asked for most."""
        return int(self.shares.argmax())


def zipf_keys(keys: int, exponent: float = 1.0, seed: int | np.random.Generator = 0) -> Keys:
    """Keys asked for by Zipf's law: that of rank r in proportion to `1 / r ** exponent`.

    With an exponent of 0 all are asked for alike. Hashes are drawn by the seed.
    """
    refuse(
        [
            ("keys", keys, keys >= 1, "1 or more"),
            ("exponent", exponent, 0 <= exponent < math.inf, "0 or more"),
        ]
    )
    rng = np.random.default_rng(seed)
    shares = np.arange(1, keys + 1, dtype=np.float64) ** -exponent
    hashes = rng.random(keys)
    order = np.argsort(hashes)
    return Keys(hashes[order], shares[order] / shares.sum())


@dataclass(frozen=True, slots=True)
class Partitions:
    """How a table is partitioned, in one dimension.

    It begins with `count` partitions of equal ranges of hashes, each of at most `limit` units a
    second. Where `split_after` is given, a partition that is hot for so many seconds is split in
    two; infinite for a table that never splits. `adaptive` capacity may be left out, to see what
    it does.
    """

    count: int
    limit: float = READ_LIMIT
    split_after: float = math.inf
    burst_seconds: float = 300.0
    adaptive: bool = True

    def __post_init__(self) -> None:
        refuse(
            [
                ("count", self.count, self.count >= 1, "1 or more"),
                ("limit", self.limit, 0 < self.limit < math.inf, "above 0 units a second"),
                ("split_after", self.split_after, self.split_after > 0, "above 0 seconds"),
                ("burst_seconds", self.burst_seconds, 0 <= self.burst_seconds < math.inf, _TIME),
            ]
        )


_TIME = "0 seconds or more"


@dataclass(frozen=True, slots=True, eq=False)
class PartitionedRun(Run):
    """What a table's partitions did.

    Of what was throttled, `key_range` is what exceeded a partition's limit, in units a second:
    AWS calls the reason KeyRangeThroughputExceeded. The rest is ProvisionedThroughputExceeded.
    `partitions` is how many there were in each step, `hottest` the units a second asked of the
    hottest one.
    """

    key_range: Units
    hottest: Units
    partitions: Numbers


def simulate(
    demand: Demand, capacity: float | Units, keys: Keys, partitions: Partitions, filled: float = 1.0
) -> PartitionedRun:
    """What the partitions of a table serve of a demand, in steps of any length.

    `capacity` is provisioned, in units a second: one number, or one for each step, such as those
    of an autoscaled run. Burst capacity is `filled` to so much at first. Raises `InvalidValue`.
    """
    provisioned = np.broadcast_to(np.asarray(capacity, np.float64), demand.units.shape)
    refuse(
        [
            ("capacity", capacity, bool((provisioned > 0).all()), "above 0 units a second"),
            ("filled", filled, 0 <= filled <= 1, "a share from 0 to 1"),
        ]
    )
    table = _Table(keys, partitions, float(provisioned[0]) * filled)
    steps = [
        table.serve(units, units_provisioned, demand.step)
        for units, units_provisioned in zip(
            demand.units.tolist(), provisioned.tolist(), strict=True
        )
    ]
    served, key_range, hottest, count = np.array(steps).T
    # What partitions lend each other is rounded: less than that is not throttled.
    whole = demand.units - served <= _LEAST * (1 + demand.units)
    consumed = np.where(whole, demand.units, served)
    return PartitionedRun(
        demand=demand,
        capacity=provisioned,
        consumed=consumed,
        throttled=demand.units - consumed,
        key_range=key_range,
        hottest=hottest,
        partitions=count.astype(np.int64),
    )


class _Table:
    """Partitions as ranges of keys, each with its burst capacity."""

    def __init__(self, keys: Keys, partitions: Partitions, capacity: float) -> None:
        self.keys, self.rules = keys, partitions
        self.sums = np.concatenate([[0.0], np.cumsum(keys.shares)])
        bounds = np.arange(partitions.count + 1) / partitions.count
        self.edges: Numbers = np.searchsorted(keys.hashes, bounds).astype(np.int64)
        self.shares = np.diff(self.sums[self.edges])
        self.burst = np.full(partitions.count, capacity / partitions.count)
        self.burst *= partitions.burst_seconds
        self.hot = np.zeros(partitions.count)  # seconds

    def serve(self, demand: float, capacity: float, step: float) -> tuple[float, float, float, int]:
        """Units a second served, those beyond a limit, those of the hottest, and partitions."""
        asked, limit, count = demand * self.shares, self.rules.limit, len(self.shares)
        allowed = np.minimum(asked, limit)
        share = capacity / count
        own = np.minimum(allowed, share)
        lent = self._lent(allowed - own, share - own)
        short = np.maximum(allowed - own - lent.taken, 0)
        from_burst = np.minimum(short, self.burst / step)
        saved = share - own - lent.given - from_burst
        most = share * self.rules.burst_seconds
        self.burst = np.clip(self.burst + saved * step, 0, most)
        served = float((own + lent.taken + from_burst).sum())
        told = served, float((asked - allowed).sum()), float(asked.max()), count
        self._split_hot(asked, step)
        return told

    def _lent(self, wanted: Units, unused: Units) -> _Lent:
        """What partitions take of what others leave unused."""
        want, spare = float(wanted.sum()), float(unused.sum())
        if not self.rules.adaptive or want <= _LEAST or spare <= _LEAST:
            return _Lent(np.zeros_like(wanted), np.zeros_like(unused))
        moved = min(want, spare)
        return _Lent(wanted * (moved / want), unused * (moved / spare))

    def _split_hot(self, asked: Units, step: float) -> None:
        if self.rules.split_after == math.inf:
            return
        hot = asked >= HOT * self.rules.limit
        self.hot = np.where(hot, self.hot + step, 0.0)
        # From behind, so that the places before stay what they are.
        for place in np.flatnonzero(self.hot >= self.rules.split_after)[::-1].tolist():
            self._split(place)

    def _split(self, place: int) -> None:
        """Split a partition where that halves its demand, if it has more than one key."""
        first, end = int(self.edges[place]), int(self.edges[place + 1])
        self.hot[place] = 0.0
        if end - first < 2:
            return
        middle = self._middle(first, end)
        self.edges = np.insert(self.edges, place + 1, middle)
        self.shares = np.diff(self.sums[self.edges])
        self.hot = np.insert(self.hot, place, 0.0)
        self.burst[place] /= 2
        self.burst = np.insert(self.burst, place, self.burst[place])

    def _middle(self, first: int, end: int) -> int:
        """The key before which the two parts differ least."""
        half = (self.sums[first] + self.sums[end]) / 2
        after = int(np.searchsorted(self.sums[first + 1 : end], half)) + first + 1
        nearest = [place for place in (after - 1, after) if first < place < end]
        return min(nearest, key=lambda place: abs(self.sums[place] - half))


@dataclass(frozen=True, slots=True)
class _Lent:
    taken: NDArray[np.float64]
    given: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HotKey:
    """What the most asked key of a table can take, in units a second.

    `share` is its share of the demand, `partition_share` that of its partition. `takes` is the
    most that it can get, alone on a partition; `takes_beside` what is left to it beside the
    others on its partition, at the demand at which that partition is full. `table_units` is the
    demand of the whole table at which its partition is full, `table_units_alone` that at which it
    would be if the key were alone on it, as splitting would make it in time.
    """

    share: float
    partition_share: float
    takes: float
    takes_beside: float
    table_units: float
    table_units_alone: float


def hot_key(keys: Keys, partitions: Partitions) -> HotKey:
    """How much the most asked key can take: where a partition's limit binds, not the table's.

    No capacity that is provisioned for the table raises these: only more keys do (write
    sharding), or a cache before the table.
    """
    bounds = np.arange(partitions.count + 1) / partitions.count
    place = keys.hottest
    share = float(keys.shares[place])
    partition = np.searchsorted(bounds, keys.hashes, side="right") - 1
    beside = float(keys.shares[partition == partition[place]].sum())
    limit = partitions.limit
    return HotKey(
        share=share,
        partition_share=beside,
        takes=limit,
        takes_beside=limit * share / beside,
        table_units=limit / beside,
        table_units_alone=limit / share,
    )
