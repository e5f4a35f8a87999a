"""What a table should be: one description, for Terraform, for the API and for `doctor`.

In a file it is TOML:

    name = "chalk-online-store"
    regions = ["us-east-1", "us-west-2"]

    [capacity]
    mode = "provisioned"
    read = {units = 1000, autoscaling = {min = 500, max = 5000, target = 70}}
    write = {units = 500, autoscaling = {min = 250, max = 2500}}

    [tags]
    environment = "production"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct, field

from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.vector_indexes import VectorIndexSpec
from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.files import read_toml
from chalk_online_store.planning.modes import TARGET, Mode
from chalk_online_store.planning.sizing import PlannedUnits, Sizing, planned_regions

MAX_VECTOR_INDEXES = 5
"""AWS: vector indexes of one table."""

_TABLE = r"^[A-Za-z0-9_.-]{3,255}$"
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_NAME = r"^[A-Za-z0-9_.-]{1,255}$"
_PRINCIPAL = r"^arn:[a-z-]+:(iam|sts)::\d{12}:[^*]+$"

Count: TypeAlias = Annotated[int, Meta(ge=1)]
Name: TypeAlias = Annotated[str, Meta(pattern=_NAME)]


class Autoscaling(Struct, frozen=True, forbid_unknown_fields=True):
    """Target tracking by Application Auto Scaling, for one dimension in one region.

    AWS: the target is a share of what is provisioned, 20 to 90 %; cooldowns are seconds.
    """

    min: Count
    max: Count
    target: Annotated[float, Meta(ge=20, le=90)] = 70.0
    scale_in_cooldown: Annotated[int, Meta(ge=0)] = 60
    scale_out_cooldown: Annotated[int, Meta(ge=0)] = 60

    def __post_init__(self) -> None:
        if self.min > self.max:
            raise InvalidValue(f"Autoscaling from min={self.min} to max={self.max}: swap them.")


class Units(Struct, frozen=True, forbid_unknown_fields=True):
    """Provisioned capacity units a second; where they are autoscaled, what it begins with."""

    units: Count
    autoscaling: Autoscaling | None = None

    def __post_init__(self) -> None:
        scaled = self.autoscaling
        if scaled is not None and not scaled.min <= self.units <= scaled.max:
            raise InvalidValue(
                f"units={self.units} must lie in the autoscaling's {scaled.min} to {scaled.max}."
            )


class Provisioned(
    Struct, frozen=True, tag_field="mode", tag="provisioned", forbid_unknown_fields=True
):
    """Capacity that is paid by the hour.

    `replica_read` has the read capacity of regions in which it differs. There is one write
    capacity: AWS keeps it the same in all regions of a Global Table, since each takes the
    writes of all.
    """

    read: Units
    write: Units
    replica_read: Mapping[str, Units] = {}

    def read_in(self, region: str) -> Units:
        """The read capacity of a region."""
        return self.replica_read.get(region, self.read)


class OnDemand(Struct, frozen=True, tag_field="mode", tag="on-demand", forbid_unknown_fields=True):
    """Capacity that is paid by the request; each maximum, if stated, is in units a second."""

    max_read: Count | None = None
    max_write: Count | None = None


Capacity: TypeAlias = Provisioned | OnDemand


class WarmThroughput(Struct, frozen=True, forbid_unknown_fields=True):
    """Request units per second that a table serves at once, without growing first.

    AWS: a new table on demand has 12,000 reads and 4,000 writes. That is also the least that can
    be asked for. Warm throughput can be raised, never lowered, and raising it is billed once.
    """

    read: Annotated[int, Meta(ge=12_000)]
    write: Annotated[int, Meta(ge=4_000)]


class Alarms(Struct, frozen=True, forbid_unknown_fields=True):
    """CloudWatch alarms. `topics` has the ARN of an SNS topic for each region, or is empty.

    `throttled_per_minute` counts throttled reads or writes, `utilisation` is in percent of the most
    that the table can serve, `replication_latency_ms` is in milliseconds.
    """

    topics: Mapping[str, str] = {}
    throttled_per_minute: Count = 1
    utilisation: Annotated[float, Meta(gt=0, le=100)] = 80.0
    replication_latency_ms: Count = 10_000


class Backups(Struct, frozen=True, forbid_unknown_fields=True):
    """A plan of AWS Backup in the first region: `schedule` is a cron expression in UTC."""

    schedule: Annotated[str, Meta(pattern=r"^(cron|rate)\([^()]+\)$")] = "cron(0 3 * * ? *)"
    keep_days: Count = 35


class SharedWith(Struct, frozen=True, forbid_unknown_fields=True):
    """Principals of other accounts, as ARNs, that a resource policy of the table admits."""

    readers: tuple[Annotated[str, Meta(pattern=_PRINCIPAL)], ...] = ()
    writers: tuple[Annotated[str, Meta(pattern=_PRINCIPAL)], ...] = ()


class TableSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A table as it should be, in one region or, as a Global Table, in several.

    The first of `regions` is the one that it is made in. Encryption at rest is always on: with
    a key that AWS manages (`aws/dynamodb`), or with your own, an ARN for each region in
    `kms_key_arns`. `recovery_days` is how far back point-in-time recovery reaches, None to have
    none.

    `vector_indexes` are those of a schema: `provisioning.vector_indexes_of` makes them. They are
    applied by the API only, as the AWS provider for Terraform does not know them.

    `prevent_destroy`, `warm`, `alarms`, `contributor_insights`, `backups` and `shared_with` are
    applied by Terraform only.

    Raises `InvalidValue` for what AWS would refuse.
    """

    name: Annotated[str, Meta(pattern=_TABLE)]
    regions: tuple[str, ...]
    capacity: Capacity = OnDemand()
    pk: Name = "pk"
    sk: Name = "sk"
    ttl: Name = "ttl"
    recovery_days: Annotated[int, Meta(ge=1, le=35)] | None = 35
    deletion_protection: bool = True
    table_class: Literal["STANDARD", "STANDARD_INFREQUENT_ACCESS"] = "STANDARD"
    kms_key_arns: Mapping[str, str] = {}
    tags: Mapping[str, str] = field(default_factory=dict)
    prevent_destroy: bool = True
    warm: WarmThroughput | None = None
    alarms: Alarms | None = None
    contributor_insights: Literal["all-keys", "throttled-keys"] | None = None
    backups: Backups | None = None
    shared_with: SharedWith | None = None
    consistency: Literal["eventual", "strong"] = "eventual"
    replica_accounts: Mapping[str, str] = {}
    vector_indexes: tuple[VectorIndexSpec, ...] = ()

    def __post_init__(self) -> None:
        self._check_regions()
        self._check_unsupported()
        if self.alarms is not None:
            self._check_named("alarms.topics", self.alarms.topics)
        if len({self.pk, self.sk, self.ttl}) < 3:
            raise InvalidValue("pk, sk and ttl are three attributes: give them three names.")
        self._check_vector_indexes()
        self._check_named("kms_key_arns", self.kms_key_arns)
        if self.kms_key_arns and len(self.kms_key_arns) < len(self.regions):
            raise InvalidValue("kms_key_arns: AWS wants a key of your own in all regions or none.")
        if isinstance(self.capacity, Provisioned):
            self._check_named("capacity.replica_read", self.capacity.replica_read)
            if self.is_global and self.capacity.write.autoscaling is None:
                raise InvalidValue(
                    "A Global Table is on demand, or its write capacity is autoscaled (AWS): add "
                    "capacity.write.autoscaling."
                )

    def _check_vector_indexes(self) -> None:
        if self.vector_indexes and isinstance(self.capacity, Provisioned):
            raise InvalidValue(
                "vector_indexes: AWS has them on tables on demand only. Use "
                '[capacity] mode = "on-demand".'
            )
        if len(self.vector_indexes) > MAX_VECTOR_INDEXES:
            raise InvalidValue(
                f"vector_indexes: {len(self.vector_indexes)}; a table has {MAX_VECTOR_INDEXES} at "
                "most (AWS)."
            )
        if len({index.name for index in self.vector_indexes}) < len(self.vector_indexes):
            raise InvalidValue("vector_indexes: two have one name.")

    def _check_regions(self) -> None:
        if not self.regions:
            raise InvalidValue('regions: name one at least, such as "us-east-1".')
        for region in self.regions:
            if not _REGION.fullmatch(region):
                raise InvalidValue(f"regions: {region!r} is no AWS region.")
        if len(set(self.regions)) < len(self.regions):
            raise InvalidValue("regions: one of them is named twice.")

    def _check_unsupported(self) -> None:
        """Global Tables of kinds that the library cannot serve from, with the reason."""
        if self.consistency == "strong":
            raise InvalidValue(
                "consistency: a table of multi-Region strong consistency has neither transactions "
                "nor TTL (AWS). The registry allocates feature ids in transactions, and expired "
                'items are deleted by TTL. Use "eventual", and read in the write region for strong '
                "reads."
            )
        if self.replica_accounts:
            raise InvalidValue(
                "replica_accounts: the AWS provider for Terraform cannot create a replica in "
                "another account (it has no argument for GlobalTableSourceArn), and `provision` "
                "has the credentials of one account. Create such a replica by CreateTable in its "
                "account, or keep all replicas in one account and admit others by shared_with."
            )

    def _check_named(self, what: str, by_region: Mapping[str, object]) -> None:
        if unknown := sorted(set(by_region) - set(self.regions)):
            raise InvalidValue(f"{what} names {unknown[0]!r}, which is none of the regions.")

    @property
    def is_global(self) -> bool:
        """Whether it is a Global Table."""
        return len(self.regions) > 1

    @property
    def layout(self) -> TableLayout:
        """The names of its attributes."""
        return TableLayout(self.pk, self.sk, self.ttl)


def render_spec(spec: TableSpec) -> str:
    """A table as the TOML that `read_spec` reads, without what is as it is anyway."""
    return msgspec.toml.encode(_without_defaults(spec)).decode()


def _without_defaults(spec: TableSpec) -> dict[str, object]:
    plain = msgspec.to_builtins(spec)
    usual = msgspec.to_builtins(TableSpec("abc", ("us-east-1",)))
    always = {"name", "regions", "capacity"}
    return {
        name: _without_none(value)
        for name, value in plain.items()
        if name in always or value != usual[name]
    }


def _without_none(value: object) -> object:
    """TOML has no null."""
    if not isinstance(value, dict):
        return value
    return {name: _without_none(each) for name, each in value.items() if each not in (None, {})}


def read_spec(path: Path) -> TableSpec:
    """The table that a TOML file describes; raises `InvalidValue` naming the file and the place."""
    return read_toml(path, TableSpec)


# --- The table that a sizing asks for ------------------------------------------------------


def spec_for(name: str, sizing: Sizing, mode: Mode, target: float = TARGET) -> TableSpec:
    """Return a table for a sized mix, in a capacity mode: see `planned_regions`."""
    return TableSpec(name, sizing.mix.regions, _capacity(sizing, mode, target))


def _capacity(sizing: Sizing, mode: Mode, target: float) -> Capacity:
    if mode == "on-demand":
        return OnDemand()
    first, *others = planned_regions(sizing, mode, target)
    differing = {
        other.region: _units(other.read, target) for other in others if other.read != first.read
    }
    return Provisioned(_units(first.read, target), _units(first.write, target), differing)


def _units(planned: PlannedUnits, target: float) -> Units:
    if not planned.is_autoscaled:
        return Units(planned.units)
    return Units(planned.units, Autoscaling(planned.minimum, planned.maximum, target))
