"""Settings and report of a `DualStore`, and the entities to copy again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias, get_args

from chalk_online_store.arguments import check_choice, check_flag, finite_number, whole_number
from chalk_online_store.migration.comparing import DifferenceKind
from chalk_online_store.operations.rows import Status
from chalk_online_store.report import Report

Side: TypeAlias = Literal["old", "new"]
"""Which of the two stores."""

SIDES: tuple[Side, Side] = get_args(Side)


def other_side(side: Side) -> Side:
    """Return "new" for "old", and "old" for "new"."""
    return "new" if side == "old" else "old"


def check_side(side: Any, argument: str) -> Side:
    """Return `side`. Raises `InvalidValue` unless it is "old" or "new"."""
    check_choice(side, SIDES, argument)
    checked: Side = side
    return checked


@dataclass(frozen=True, slots=True)
class DualSettings:
    """Settings of a `DualStore`. All times are in seconds.

    The serving store answers reads, and the other one is the shadow store.

    `shadow_timeout` bounds each request to the shadow store: a write may take so much longer, and
    each shadow read that long. After three writes in a row that the shadow store did not
    answer, writes to it are skipped for `retry_after`, and their entities are outstanding.
    `raise_shadow_failures` raises a failed write to the shadow store, after it was counted.

    `tolerance` is for floats: see `same_value`. Times of values may differ by
    `observed_at_tolerance`. A difference counts if both stores return the same results again after
    `recheck_after`: choose more than `shadow_timeout`, so that no write is in flight between the
    two stores by then.

    `keep_keys` puts primary keys into `DualReport.samples`, and `max_samples` is the maximum number
    of samples. `max_queued_keys` bounds the keys that wait for comparison, and
    `max_outstanding` the entities of each store that are outstanding.

    Raises `InvalidValue`.
    """

    shadow_timeout: float = 1.0
    retry_after: float = 5.0
    raise_shadow_failures: bool = False
    tolerance: float = 0.0
    observed_at_tolerance: float = 0.0
    recheck_after: float = 2.0
    keep_keys: bool = False
    max_samples: int = 100
    max_queued_keys: int = 10_000
    max_outstanding: int = 100_000

    def __post_init__(self) -> None:
        finite_number(self.shadow_timeout, "shadow_timeout", least=0.001, most=3600)
        for name in ("retry_after", "tolerance", "observed_at_tolerance", "recheck_after"):
            finite_number(getattr(self, name), name, most=86_400)
        for name in ("raise_shadow_failures", "keep_keys"):
            check_flag(getattr(self, name), name)
        for name in ("max_samples", "max_queued_keys", "max_outstanding"):
            whole_number(getattr(self, name), name)


@dataclass(frozen=True, slots=True)
class Outstanding:
    """An entity whose latest write or delete may be missing in `store`.

    `deletes` has the deletes that may be missing: the features (None for the entity), and the
    observed-at of the delete.
    """

    store: Side
    namespace: str
    key: Any = field(repr=False)
    deletes: Mapping[tuple[str, ...] | None, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between the results of the two stores for one feature of one entity.

    `key` is None unless `DualSettings.keep_keys` is set, and is not shown by `repr`. Values are
    not kept.
    """

    feature: str
    kind: DifferenceKind
    serving: Side
    serving_status: Status
    shadow_status: Status
    serving_observed_at: datetime | None
    shadow_observed_at: datetime | None
    key: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class FeatureComparison:
    """Counts of the compared values of one feature.

    `equal` and the three kinds of differences are exclusive. `unsettled` values were written
    during each comparison, and `failed` ones could not be read from one of the stores.
    """

    equal: int = 0
    status: int = 0
    value: int = 0
    observed_at: int = 0
    unsettled: int = 0
    failed: int = 0

    @property
    def differences(self) -> int:
        """The number of confirmed differences of all kinds."""
        return self.status + self.value + self.observed_at


@dataclass(frozen=True, slots=True)
class ReadLatency:
    """The latency of the latest compared reads of a store, in seconds; up to 1,000 reads."""

    reads: int = 0
    p50: float = 0.0
    p99: float = 0.0


@dataclass(frozen=True, slots=True)
class DualReport:
    """The counts of a `DualStore` since it was opened, or since `reset_report`.

    `serving` is the store that answers reads now. `features` has the compared values by full name,
    and `samples` some of their differences.

    `reads_sampled` reads were chosen for comparison. Of these, `reads_compared` were compared,
    `reads_dropped` found the queue full or the store closed, and `reads_failed` failed in the
    shadow store. `latency` compares the two stores.

    `writes` counts writes and deletes. `writes_failed` of them did not reach the shadow store in
    whole, and of these `writes_skipped` were not sent. `outstanding` is the number of entities of
    each store to copy again. `outstanding_dropped` entities exceeded `max_outstanding`, or had an
    invalid key: only a complete copy finds them.

    `errors` counts errors of the shadow store by class. `cost` adds up the reports of writes
    and of compared reads by store.
    """

    serving: Side
    features: Mapping[str, FeatureComparison]
    samples: tuple[Difference, ...]
    reads_sampled: int
    reads_compared: int
    reads_dropped: int
    reads_failed: int
    latency: Mapping[Side, ReadLatency]
    writes: int
    writes_failed: int
    writes_skipped: int
    outstanding: Mapping[Side, int]
    outstanding_dropped: int
    errors: Mapping[str, int]
    cost: Mapping[Side, Report]

    @property
    def differences(self) -> int:
        """The number of confirmed differences of all features."""
        return sum(feature.differences for feature in self.features.values())

    @property
    def values_compared(self) -> int:
        """The number of values that are equal or different for certain."""
        return self.differences + sum(feature.equal for feature in self.features.values())
