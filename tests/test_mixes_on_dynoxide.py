"""Sizings against an engine: the units of a mix are those that the engine reports for it.

Items are filled up to exact KB boundaries: one byte more or less would show as a whole unit.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalk_online_store import Feature, Namespace, OnlineStore
from chalk_online_store.planning.items import Sample
from chalk_online_store.planning.mix import Mix, NamespaceMix, Query, Write
from chalk_online_store.planning.sizing import Sizing, size
from chalk_online_store.testing import Dynoxide, create_table

KB = 1024
T0 = datetime(2026, 3, 4, 5, 6, 7, 890123, UTC)
NAMES = [f"f{i}" for i in range(20)]
WIDE = Namespace("wide", int, [Feature(name, int) for name in NAMES])
FILLED = Namespace(
    "filled",
    int,
    [Feature("blob", bytes), Feature("count", int), Feature("risk", float, group="realtime")],
)


def opened(dynoxide: Dynoxide, namespace: Namespace) -> OnlineStore:
    name = f"mix-{uuid.uuid4().hex}"
    create_table(dynoxide.endpoint_url, name)
    store = OnlineStore.open(dynoxide.url(name), [namespace], session=dynoxide.session())
    everything = {f.name: b"" if f.type.name == "bytes" else 1 for f in namespace.features}
    store.write(namespace, [{"id": 99_999_999, **everything}])  # Registration costs units too.
    return store


@pytest.fixture
def filled(dynoxide: Dynoxide) -> Iterator[OnlineStore]:
    with opened(dynoxide, FILLED) as store:
        yield store


def sized(namespace: Namespace, rows: Sequence[dict[str, Any]], **settings: Any) -> Sizing:
    part = NamespaceMix(namespace.name, entities=len(rows), **settings)
    return size(Mix((part,)), {namespace.name: Sample(namespace, rows)})


def filled_rows(count: int, target: int, writes: Sequence[Write]) -> list[dict[str, Any]]:
    """Rows whose default item has so many bytes after these writes."""
    rows: list[dict[str, Any]] = [
        {"id": 10_000_001 + i, "blob": b"", "count": 7, "risk": 0.25} for i in range(count)
    ]
    (empty,) = {
        g.bytes for g in sized(FILLED, rows, write=tuple(writes)).groups if g.group == "default"
    }
    return [{**row, "blob": bytes(target - int(empty))} for row in rows]


def written(store: OnlineStore, row: dict[str, Any], features: Sequence[str], at: int) -> float:
    """Write some features of a row at a time of 16 digits; the WCU that the engine reports."""
    part = {name: row[name] for name in row if name == "id" or not features or name in features}
    namespace = WIDE if "f0" in row else FILLED
    time = T0 + timedelta(microseconds=2 * at)
    return store.write(namespace, [part], observed_at=time).wcu


@pytest.mark.parametrize("target", [KB, KB + 1, 3 * KB, 3 * KB + 1, 8 * KB, 8 * KB + 1])
@pytest.mark.parametrize("narrow", [(), ("count",)], ids=["whole", "whole and partial"])
def test_the_units_of_a_mix_are_those_of_the_engine(
    filled: OnlineStore, target: int, narrow: tuple[str, ...]
) -> None:
    """Writes, eventual and strong reads cost the computed units at and past a KB boundary."""
    writes = [Write(per_second=1), *([Write(per_second=1, features=narrow)] if narrow else [])]
    rows = filled_rows(4, target, writes)
    for at, write in enumerate(writes):  # The steady state: each item had each of the writes.
        for row in rows:
            written(filled, row, write.features, at)
    found = sized(
        FILLED,
        rows,
        write=tuple(writes),
        query=(
            Query(per_second=1, entities=4, features=("blob", "count")),
            Query(per_second=1, entities=4, features=("blob", "count"), consistent=True),
            Query(per_second=1, entities=1),
        ),
    )
    wcu = 0.0
    for at, write in enumerate(writes, 100):
        wcu += sum(written(filled, row, write.features, at) for row in rows) / len(rows)
    assert found.total("WCU") == wcu
    keys = [row["id"] for row in rows]
    for _ in range(3):  # The store reads an entity's groups by Query once it knows their sizes.
        filled.read(FILLED, keys[:1])
    rcu = filled.read(FILLED, keys, ["blob", "count"]).report.rcu
    rcu += filled.read(FILLED, keys, ["blob", "count"], consistent=True).report.rcu
    rcu += filled.read(FILLED, keys[:1]).report.rcu
    assert found.total("RCU") == rcu


def test_twenty_own_times_are_sized_as_they_are_stored(dynoxide: Dynoxide) -> None:
    """An item of 20 features written apart has its computed size to the byte, at a KB boundary."""
    rng = random.Random(1)
    row: dict[str, Any] = {name: rng.randrange(10**8, 10**9) | 1 for name in NAMES}
    row["id"] = 10_000_001
    apart = tuple(Write(per_second=1, features=(name,)) for name in NAMES)
    (group,) = sized(WIDE, [row], write=apart).groups
    # 20 own times of 16 digits, 9 bytes, under "@" and an id of 1 byte; "~" with 0, 2 bytes; and
    # without a whole write there is no "%" with 20, 3 bytes. A time that ends in zeros would have
    # up to 7 bytes less.
    whole = sized(WIDE, [row], write=(Write(per_second=1),)).groups[0].bytes
    assert group.bytes - whole == 20 * (2 + 9) + 2 - 3
    longer = Namespace("wide", int, [*WIDE.features, Feature("blob", bytes)])
    for extra, units in ((0, 1), (1, 2)):
        with opened(dynoxide, longer) as store:
            names = [*NAMES, "blob"]
            writes = tuple(Write(per_second=1, features=(name,)) for name in names)
            empty = sized(longer, [{**row, "blob": b""}], write=writes).groups[0].bytes
            full = {**row, "blob": bytes(KB - int(empty) + extra)}
            costs = [
                store.write(
                    longer,
                    [{"id": row["id"], name: full[name]}],
                    observed_at=T0 + timedelta(microseconds=2 * at),
                ).wcu
                for at, name in enumerate(names * 2)
            ]
            found = sized(longer, [full], write=writes)
            assert found.groups[0].bytes == KB + extra
            assert found.total("WCU") == sum(costs[len(names) :]) == units * len(names)
