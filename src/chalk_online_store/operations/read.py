"""Reading features: plan, cache, backend, rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chalk_online_store.backend import Backend, Call, Found
from chalk_online_store.cache.lru import MISS, ItemCache
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.codec.namespaces import GroupCodec, NamespaceCodec
from chalk_online_store.codec.shapes import Shape
from chalk_online_store.effects import NOW, Instant, Operation
from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.operations.rows import Rows, Source
from chalk_online_store.schema import Duration, Feature, microseconds

Overrides = Mapping[str, Duration]
"""Feature names to the max staleness of one read."""


@dataclass
class GroupRead:
    """One group that a read needs: its item's sort key and how its rows are read."""

    sk: str
    shape: Shape
    features: list[Feature] = field(default_factory=list)


@dataclass(frozen=True)
class ReadPlan:
    """What a read of some features needs, however many keys it has."""

    groups: Sequence[GroupRead]
    sources: Mapping[str, Source]


def plan_read(
    codec: NamespaceCodec, names: Sequence[str], overrides: Overrides, cached: bool
) -> ReadPlan:
    """Resolve feature names once. Raises `UnknownFeature`, `InvalidSchema`.

    A cached read decodes whole items, so that any later read is served from them.
    """
    features = [codec.namespace.feature(name) for name in names]
    by_name = {codec.namespace.feature(n).name: microseconds(d) for n, d in overrides.items()}
    staleness = {f.name: by_name.get(f.name, f.staleness) for f in features}
    groups: dict[str, GroupRead] = {}
    sources: dict[str, Source] = {}
    for feature in features:
        group = codec.groups.get(feature.group)
        age = staleness[feature.name]
        if group is None or age == 0 or feature.name not in group.shape.positions:
            sources[feature.name] = Source(0, None, 0, age)
            continue
        if group.name not in groups:
            wanted = {f.name for f in features if f.group == group.name and staleness[f.name] != 0}
            shape = group.shape if cached else _narrowed(group, wanted)
            groups[group.name] = GroupRead(group.sk, shape)
        shape = groups[group.name].shape
        index = list(groups).index(group.name)
        sources[feature.name] = Source(index, shape, shape.positions[feature.name], age)
    return ReadPlan(list(groups.values()), sources)


def _narrowed(group: GroupCodec, wanted: Iterable[str]) -> Shape:
    """A shape of the wanted features alone, projected where that spares half of the item."""
    columns = tuple(c for c in group.columns if c.feature.name in wanted)
    if len(columns) == len(group.columns):
        return group.shape
    return Shape(group.shape.layout, columns, projected=len(columns) * 2 <= len(group.columns))


def read(
    backend: Backend,
    cache: ItemCache | None,
    plan: ReadPlan,
    keys: Sequence[Any],
    partition_keys: Sequence[str],
    call: Call,
) -> Operation[Rows]:
    """Read the planned features of every key, each key once."""
    places: dict[str, int] = {}
    positions = [places.setdefault(pk, len(places)) for pk in partition_keys]
    found: list[list[Found]] = []
    for group in plan.groups:
        items = [ItemKey(pk, group.sk) for pk in places]
        if cache is None:
            found.append((yield from backend.get(items, group.shape, call)))
        else:
            found.append((yield from _read_through(backend, cache, items, group.shape, call)))
    _count(found, call)
    now: Instant = yield NOW
    return Rows(keys, plan.sources, positions, found, now.wall, call.report)


def _read_through(
    backend: Backend, cache: ItemCache, keys: Sequence[ItemKey], shape: Shape, call: Call
) -> Operation[list[Found]]:
    lease = cache.lease()
    now: Instant = yield NOW
    known = [MISS] * len(keys) if call.consistent else cache.get_many(keys, now.monotonic)
    # A row from another reading of the registry has other columns.
    known = [row if row is None or type(row) is shape.row_type else MISS for row in known]
    missed = [key for key, row in zip(keys, known, strict=True) if row is MISS]
    call.report.cache_hits += len(keys) - len(missed)
    if not missed:
        return known
    fetched = dict(zip(missed, (yield from backend.get(missed, shape, call)), strict=True))
    read = {key: row for key, row in fetched.items() if not isinstance(row, OnlineStoreError)}
    cache.fill(read, lease, now.monotonic)
    return [fetched[key] if row is MISS else row for key, row in zip(keys, known, strict=True)]


def _count(found: Iterable[Sequence[Found]], call: Call) -> None:
    rows = [row for group in found for row in group if row is not None]
    failed = sum(isinstance(row, OnlineStoreError) for row in rows)
    call.report.failed += failed
    call.report.items_read += len(rows) - failed
