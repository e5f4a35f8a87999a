"""What a table is asked to do: entities, queries and writes, as a TOML file or in Python.

    regions = ["us-east-1", "us-west-2"]
    trough = 0.4

    [[namespace]]
    schema = "myapp.features:User"
    entities = 50_000_000
    growth = 0.02

    [[namespace.query]]
    per_second = 2000
    entities = 20
    hit_rate = 0.6

    [[namespace.write]]
    per_second = 500
    features = ["risk"]

All rates are those of the busiest minutes of a day.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from chalk_online_store.errors import InvalidValue
from chalk_online_store.operations.write import Ordering
from chalk_online_store.planning.files import read_toml

Share = Annotated[float, Meta(ge=0, le=1)]
Rate = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]


class Query(Struct, frozen=True, forbid_unknown_fields=True):
    """Queries of one kind.

    Each reads `features` (all, unless named) of so many `entities`. `hit_rate` is the share of
    items that an LRU cache serves, `absent` the share of entities that do not exist, and `bloom`
    the share of those that a Bloom filter keeps away from the table. `hottest` is the share of
    these reads that the most read entity gets. Strong reads (`consistent`) pass by the cache.
    """

    per_second: Rate
    entities: Positive = 1.0
    features: tuple[str, ...] = ()
    hit_rate: Share = 0.0
    absent: Share = 0.0
    bloom: Share = 0.0
    hottest: Share = 0.0
    consistent: bool = False

    def __post_init__(self) -> None:
        if self.consistent and (self.hit_rate or self.bloom):
            raise InvalidValue(
                "A consistent query passes by cache and Bloom filter: leave hit_rate and bloom out."
            )


class Write(Struct, frozen=True, forbid_unknown_fields=True):
    """Writes of one kind: so many entities a second, of `features` (all, unless named).

    `hottest` is the share that the most written entity gets. `late` is the share that arrives
    after a newer write of other features of the same item: it can take a refused request, which
    is billed. A write that is older than all it would change takes one request, as any other.
    """

    per_second: Rate
    features: tuple[str, ...] = ()
    ordering: Ordering = "event"
    hottest: Share = 0.0
    late: Share = 0.0


class NamespaceMix(Struct, frozen=True, forbid_unknown_fields=True):
    """One namespace: how many entities, by what share more of them each month, what for.

    `schema` is `module:Class`, or the name of a namespace that is known otherwise: by `sample`,
    a file of rows with the primary key in the columns `key`, or handed in by the caller.
    `expiring` is how many items a second the TTL deletes, which a Global Table replicates, and
    charges for. `zipf` is the exponent of Zipf's law by which entities are read: what a cache
    would save follows from it.
    """

    schema: str
    entities: Annotated[int, Meta(ge=0)]
    sample: str = ""
    key: tuple[str, ...] = ()
    growth: Annotated[float, Meta(ge=0)] = 0.0
    expiring: Rate = 0.0
    zipf: Rate = 1.0
    query: tuple[Query, ...] = ()
    write: tuple[Write, ...] = ()


class Extras(Struct, frozen=True, forbid_unknown_fields=True):
    """Optional features of a table that AWS bills in addition to requests and storage.

    `recovery` is point-in-time recovery. `backups` is the number of full backups kept, and
    `stream_reads_per_second` the rate of your GetRecords calls per region. `customer_key` is a
    customer managed KMS key. `insights` is the mode of Contributor Insights. `alarms` is the
    number of CloudWatch alarms per region, without the alarms of autoscaling. `warm_reads` and
    `warm_writes` are the warm throughput of the new table, in units per second. `free_tier` is
    True if this table uses the account's free tier.
    """

    recovery: bool = True
    backups: Rate = 0.0
    stream_reads_per_second: Rate = 0.0
    customer_key: bool = False
    insights: Literal["", "accessed", "throttled"] = ""
    alarms: Annotated[int, Meta(ge=0)] = 0
    warm_reads: Rate = 0.0
    warm_writes: Rate = 0.0
    free_tier: bool = False


class Mix(Struct, frozen=True, forbid_unknown_fields=True, rename={"namespaces": "namespace"}):
    """All that a table is asked to do.

    `reads` is the share of all queries that each region serves: all in the first, unless
    stated. `standby` is the share of what a region has to serve when another one is lost that
    its provisioned capacity is ready for at any time: autoscaling takes many minutes, during
    which it would throttle. `trough` is the lowest rate of a day as a share of the highest, the
    rest of the day a sine between them. `months` is for how long storage grows. `extras` are
    optional features that AWS bills.
    """

    namespaces: Annotated[tuple[NamespaceMix, ...], Meta(min_length=1)]
    regions: Annotated[tuple[str, ...], Meta(min_length=1)] = ("us-east-1",)
    reads: Mapping[str, Share] = field(default_factory=dict)
    standby: Share = 1.0
    trough: Share = 1.0
    months: Annotated[int, Meta(ge=0, le=120)] = 12
    extras: Extras = Extras()

    def __post_init__(self) -> None:
        if len(set(self.regions)) < len(self.regions):
            raise InvalidValue("regions: one of them is named twice.")
        if unknown := sorted(set(self.reads) - set(self.regions)):
            raise InvalidValue(f"reads names {unknown[0]!r}, which is none of the regions.")
        if self.reads and abs(sum(self.reads.values()) - 1) > 1e-6:
            raise InvalidValue(f"reads: the shares add up to {sum(self.reads.values()):g}, not 1.")

    @property
    def mean(self) -> float:
        """The mean rate of a day as a share of the highest: a sine lies half way."""
        return (1 + self.trough) / 2

    def share_of(self, region: str) -> float:
        """The share of all queries that a region serves."""
        if self.reads:
            return self.reads.get(region, 0.0)
        return float(region == self.regions[0])

    def share_without(self, region: str) -> float:
        """The most that a region has to serve when another one is lost.

        All that the lost one served comes to it: clients go to the next region of their list.
        """
        others = [self.share_of(other) for other in self.regions if other != region]
        return self.share_of(region) + max(others, default=0.0)


def read_mix(path: Path) -> Mix:
    """The mix in a TOML file; raises `InvalidValue` naming the file and the place in it."""
    return read_toml(path, Mix)
