"""Reading features: plan, items, rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from chalk_online_store.backend import Call, GroupKeys, RowOrError, fan_out
from chalk_online_store.codec.compiled import Frame
from chalk_online_store.codec.decoding import DamagedRow
from chalk_online_store.codec.namespaces import GroupCodec, NamespaceCodec
from chalk_online_store.codec.shapes import MOST_PROJECTED, Column, Shape
from chalk_online_store.effects import NOW, Instant, Operation
from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.operations.rows import ColumnSource, ColumnSources, Rows
from chalk_online_store.schema import Duration, Feature, microseconds
from chalk_online_store.schema.namespaces import NO_DEFAULT
from chalk_online_store.schema.types import struct_fields
from chalk_online_store.tiers.cached_reads import Reads

Overrides = Mapping[str, Duration]
"""Feature names to the max staleness of one read."""


@dataclass(frozen=True, slots=True)
class GroupRead:
    """One group that a read needs: its item's sort key and how its rows are read."""

    sk: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """What a read of some features needs, however many keys it has."""

    codec: NamespaceCodec
    groups: Sequence[GroupRead]
    sources: ColumnSources


def plan_read(
    codec: NamespaceCodec,
    names: Sequence[str],
    overrides: Overrides,
    cached: bool,
    defaults: bool = False,
) -> ReadPlan:
    """Resolve feature names once. Raises `UnknownFeature`, `InvalidSchema`.

    A cached read decodes whole items, so that any later read is served from them. With `defaults`
    declared defaults are served. Raises `InvalidValue` for a default of the wrong type.
    """
    features = [codec.namespace.feature(name) for name in names]
    codec.check_features(feature.name for feature in features)
    by_name = {codec.namespace.feature(n).name: microseconds(d) for n, d in overrides.items()}
    ages = {f.name: by_name.get(f.name, f.staleness) for f in features}
    wanted: dict[str, set[str]] = {}
    for feature in features:
        group = codec.groups.get(feature.group)
        if group and ages[feature.name] != 0 and feature.name in group.shape.positions:
            wanted.setdefault(group.name, set()).add(feature.name)
    groups = {name: _group_read(codec.groups[name], some, cached) for name, some in wanted.items()}
    places = {name: place for place, name in enumerate(groups)}
    sources = ColumnSources(namespace=codec.namespace.name, key=codec.namespace.key)
    for feature in features:
        name = feature.name
        sources.features[name] = feature
        if name in wanted.get(feature.group, ()):
            shape = groups[feature.group].shape
            place = places[feature.group]
            sources[name] = ColumnSource(place, shape, shape.positions[name], ages[name])
        else:
            sources[name] = ColumnSource(0, None, 0, ages[name])
        if defaults and feature.default is not NO_DEFAULT and feature.default is not None:
            sources.add_default(name, _column_of(codec, feature))
    return ReadPlan(codec, list(groups.values()), sources)


def _column_of(codec: NamespaceCodec, feature: Feature) -> Column:
    """Return a feature's column. An unregistered feature gets ids that nothing is stored under."""
    group = codec.groups.get(feature.group)
    for column in group.columns if group else ():
        if column.feature is feature:
            return column
    full_name = codec.namespace.full_name(feature)
    paths = [path for path, _ in struct_fields(feature.type, full_name)]
    return Column("", feature, full_name, {path: str(i) for i, path in enumerate(paths)})


def _group_read(group: GroupCodec, wanted: Iterable[str], cached: bool) -> GroupRead:
    return GroupRead(group.sk, group.shape if cached else _narrowed(group, wanted))


def _narrowed(group: GroupCodec, wanted: Iterable[str]) -> Shape:
    """A shape of the wanted features alone, projected where that spares half of the item."""
    columns = tuple(c for c in group.columns if c.feature.name in wanted)
    if len(columns) == len(group.columns):
        return group.shape
    pays = len(columns) * 2 <= len(group.columns) and len(columns) <= MOST_PROJECTED
    return Shape(group.shape.layout, columns, projected=pays)


def read(
    through: Reads,
    plan: ReadPlan,
    keys: Sequence[Any],
    partition_keys: Sequence[str],
    call: Call,
) -> Operation[Rows]:
    """Read the planned features of every key, each key once."""
    pks, positions = distinct_keys(partition_keys)
    wanted = [GroupKeys(group.sk, group.shape, pks) for group in plan.groups]
    if not pks or not wanted:
        found: list[list[RowOrError]] = [[] for _ in wanted]
    else:
        found = yield from through.get(wanted, call)
    for group in found:
        count_found(group, call)
    now: Instant = yield NOW
    return Rows(keys, plan.sources, positions, found, now.wall, call.report)


def distinct_keys(partition_keys: Sequence[str]) -> tuple[list[str], list[int] | None]:
    """Return the distinct keys and each key's position among them, None if no key repeats."""
    pks = list(dict.fromkeys(partition_keys))
    if len(pks) == len(partition_keys):
        return pks, None
    places = {pk: place for place, pk in enumerate(pks)}
    return pks, [places[pk] for pk in partition_keys]


@dataclass(frozen=True, slots=True)
class PlannedRead:
    """One of several reads in a call.

    Reads that have `shares` set go to the backend together. Reads through a cache or a filter go
    separately, because a tier expects the keys of one read to be distinct.
    """

    through: Reads
    shares: bool
    plan: ReadPlan
    keys: Sequence[Any]
    partition_keys: Sequence[str]


def read_together(reads: Sequence[PlannedRead], call: Call) -> Operation[tuple[Rows, ...]]:
    """Perform several reads at once."""
    distinct = [distinct_keys(read.partition_keys) for read in reads]
    wanted: dict[int, list[tuple[int, GroupKeys]]] = {}
    for place, (read, (pks, _)) in enumerate(zip(reads, distinct, strict=True)):
        for group in read.plan.groups if pks else ():
            want = GroupKeys(group.sk, group.shape, pks)
            wanted.setdefault(-1 if read.shares else place, []).append((place, want))
    tasks = [
        partial(reads[wants[0][0]].through.get, [want for _, want in wants])
        for wants in wanted.values()
    ]
    results = (yield from fan_out(call, tasks, len(tasks))) if tasks else []
    found: list[list[list[RowOrError]]] = [[] for _ in reads]
    for wants, groups in zip(wanted.values(), results, strict=True):
        for (place, _), items in zip(wants, groups, strict=True):
            count_found(items, call)
            found[place].append(items)
    now: Instant = yield NOW
    return tuple(
        Rows(
            read.keys,
            read.plan.sources,
            positions,
            found[place] or [[] for _ in read.plan.groups],
            now.wall,
            call.report,
        )
        for place, (read, (_, positions)) in enumerate(zip(reads, distinct, strict=True))
    )


_ROWS = frozenset((tuple, type(None)))


def count_found(found: Sequence[RowOrError], call: Call) -> None:
    """Count the items that a read found, and those that failed, in its report."""
    failed = 0
    if not isinstance(found, Frame) and not _ROWS.issuperset(map(type, found)):
        failed = sum(isinstance(row, OnlineStoreError | DamagedRow) for row in found)
    call.report.failed += failed
    call.report.items_read += len(found) - found.count(None) - failed
