"""The benchmark itself: on rows of its own, which are not there before and not afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any
from uuid import UUID

from chalk_online_store.cli.bench.calls import Call, Tell, measure
from chalk_online_store.cli.bench.statistics import Measured
from chalk_online_store.cli.terminal import say
from chalk_online_store.errors import OnlineStoreError, RequestRefused, WriteFailed
from chalk_online_store.operations.rows import Status
from chalk_online_store.planning.traffic import zipf
from chalk_online_store.planning.typical import typical_rows
from chalk_online_store.report import Report
from chalk_online_store.schema import Namespace
from chalk_online_store.store import OnlineStore

_AT_ONCE = 100
_WARM_UP = 10
"""One call in so many is made before anything is measured."""

Phase = Callable[[str, int], Tell]
"""Hears what begins, and of how many calls; what it gives hears how many are done."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: `queries` calls of `batch` entities each, drawn by Zipf's law.

    All features, unless `features` names some.
    """

    namespace: Namespace
    features: Sequence[str] | None
    entities: int
    queries: int
    batch: int
    concurrency: int
    exponent: float
    write: bool


def run(store: OnlineStore, plan: Plan, phase: Phase) -> list[Measured]:
    """Measure reads, and writes where they are wanted.

    Raises what the first call that failed as a whole did, and `RequestRefused` where a row of
    its keys exists already.
    """
    store.prepare(plan.namespace, plan.features)
    with _own_rows(store, plan) as rows:
        store.warm(plan.concurrency)
        found = [_measured(plan, "read", _reads(store, plan, rows), phase)]
        if plan.write:
            found.append(_measured(plan, "write", _writes(store, plan, rows), phase))
        return found


def _measured(plan: Plan, what: str, call: Call, phase: Phase) -> Measured:
    warm_up = max(plan.concurrency, plan.queries // _WARM_UP)
    measure("warm-up", call, warm_up, plan.concurrency, phase("warm-up", warm_up))
    tell = phase(what, plan.queries)
    return measure(what, call, plan.queries, plan.concurrency, tell)


def _reads(store: OnlineStore, plan: Plan, rows: Sequence[dict[str, Any]]) -> Call:
    prepared = store.prepare(plan.namespace, plan.features)
    keys = [row[plan.namespace.key_name] for row in rows]
    drawn = _drawn(plan)
    return lambda number: prepared.read([keys[place] for place in drawn[number]]).report


def _writes(store: OnlineStore, plan: Plan, rows: Sequence[dict[str, Any]]) -> Call:
    """Each writes the values of other entities, so that they change."""
    name = plan.namespace.key_name
    wanted = plan.features or [feature.name for feature in plan.namespace.features]
    drawn = _drawn(plan)

    def call(number: int) -> Report:
        batch = []
        for place in dict.fromkeys(drawn[number]):
            other = rows[(place + number + 1) % len(rows)]
            batch.append({name: rows[place][name], **{each: other[each] for each in wanted}})
        try:
            return store.write(plan.namespace, batch)
        except WriteFailed as error:
            return Report(failed=len(error.failed))

    return call


def _drawn(plan: Plan) -> Sequence[Sequence[int]]:
    """The places of the entities of each call."""
    calls = max(plan.queries, plan.concurrency)
    places = zipf(calls * plan.batch, plan.entities, plan.exponent).entities
    return places.reshape(calls, plan.batch).tolist()


# --- rows of its own -----------------------------------------------------------------------


def own_keys(namespace: Namespace, count: int, token: int) -> list[Any]:
    """Keys that nobody else has; `token` has 62 bits and tells one run from another."""

    def part(kind: type, number: int) -> Any:
        if kind is int:
            return token + number
        return UUID(int=(token << 64) + number) if kind is UUID else f"bench-{token:x}-{number}"

    keys = (tuple(part(kind, each) for kind in namespace.key.parts) for each in range(count))
    return [key if namespace.key.composite else key[0] for key in keys]


@contextmanager
def _own_rows(store: OnlineStore, plan: Plan) -> Iterator[list[dict[str, Any]]]:
    """Rows that are made up and written; they are deleted on leaving, however it ends."""
    namespace = plan.namespace
    keys = own_keys(namespace, plan.entities, (1 << 61) + secrets.randbits(60))
    _refuse_existing(store, namespace, keys)
    made = typical_rows(namespace, plan.entities)
    rows = [{**row, namespace.key_name: key} for row, key in zip(made, keys, strict=True)]
    try:
        for some in _chunks(rows):
            store.write(namespace, some)
        yield rows
    finally:
        _remove(store, namespace, keys)


def _refuse_existing(store: OnlineStore, namespace: Namespace, keys: Sequence[Any]) -> None:
    for some in _chunks(keys):
        rows = store.read(namespace, some, consistent=True)
        for row, name in product(rows, rows.features):
            if row.status(name) is Status.FAILED:
                row[name]  # Raises what failed.
            if row.status(name) is not Status.MISSING:
                raise RequestRefused("A row under the benchmark's own keys exists: run it again.")


def _remove(store: OnlineStore, namespace: Namespace, keys: Sequence[Any]) -> None:
    try:
        for some in _chunks(keys):
            store.delete(namespace, some, ordering="arrival")  # Leaves no tombstones.
    except OnlineStoreError as error:
        left = f"Rows of the benchmark are left, {keys[0]!r} to {keys[-1]!r}: {error}"
        say(left, err=True)
        raise


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(values), _AT_ONCE):
        yield values[first : first + _AT_ONCE]
